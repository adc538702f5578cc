"""What runs look like afterwards: tables, and the page of `ke-report`."""

from lightning_ke.report.table import NetworkRow, Table, generation_table, network_table

__all__ = ["NetworkRow", "Table", "generation_table", "network_table"]

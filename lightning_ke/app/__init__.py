"""The command line: `ke-train`, `ke-report` and `ke-slim`.

Modules that a command imports before it has understood its arguments import neither torch nor lightning: a typing
mistake is answered at once.
"""

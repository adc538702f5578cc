"""Data modules for the experiments, and the embedded data set."""

from lightning_ke.data.base import ImageDataModule
from lightning_ke.data.decode import DataNotFoundError
from lightning_ke.data.embedded import EmbeddedDataModule
from lightning_ke.data.flowers102 import Flowers102DataModule
from lightning_ke.data.folder import FolderDataModule
from lightning_ke.data.imagenet import ImageNetDataModule
from lightning_ke.data.listed_sets import CUB200DataModule, MIT67DataModule, StanfordDogsDataModule
from lightning_ke.data.pictures import PictureDataModule
from lightning_ke.data.torchvision_sets import (
    AircraftDataModule,
    CIFAR10DataModule,
    CIFAR100DataModule,
    EuroSATDataModule,
    OxfordPetsDataModule,
)

__all__ = [
    "AircraftDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "CUB200DataModule",
    "DataNotFoundError",
    "EmbeddedDataModule",
    "EuroSATDataModule",
    "Flowers102DataModule",
    "FolderDataModule",
    "ImageDataModule",
    "ImageNetDataModule",
    "MIT67DataModule",
    "OxfordPetsDataModule",
    "PictureDataModule",
    "StanfordDogsDataModule",
]

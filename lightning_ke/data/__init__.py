"""Data modules for the experiments, and the embedded data set."""

from lightning_ke.data.base import ImageDataModule
from lightning_ke.data.class_disjoint import (
    CarsRetrievalDataModule,
    ClassDisjointDataModule,
    CUB200RetrievalDataModule,
    FlowersRetrievalDataModule,
    OmniglotDataModule,
)
from lightning_ke.data.cora import CoraDataModule
from lightning_ke.data.decode import DataNotFoundError
from lightning_ke.data.embedded import EmbeddedDataModule
from lightning_ke.data.flowers102 import Flowers102DataModule
from lightning_ke.data.folder import FolderDataModule
from lightning_ke.data.heading import HeadingDataModule
from lightning_ke.data.imagenet import ImageNetDataModule
from lightning_ke.data.listed_sets import CUB200DataModule, MIT67DataModule, StanfordDogsDataModule
from lightning_ke.data.medmnist import MedMNISTDataModule
from lightning_ke.data.pictures import PictureDataModule
from lightning_ke.data.text import TextDataModule
from lightning_ke.data.torchvision_sets import (
    AircraftDataModule,
    CIFAR10DataModule,
    CIFAR100DataModule,
    EuroSATDataModule,
    OxfordPetsDataModule,
)
from lightning_ke.data.values import ImageValueDataModule

__all__ = [
    "AircraftDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "CUB200DataModule",
    "CUB200RetrievalDataModule",
    "CarsRetrievalDataModule",
    "ClassDisjointDataModule",
    "CoraDataModule",
    "DataNotFoundError",
    "EmbeddedDataModule",
    "EuroSATDataModule",
    "Flowers102DataModule",
    "FlowersRetrievalDataModule",
    "FolderDataModule",
    "HeadingDataModule",
    "ImageDataModule",
    "ImageNetDataModule",
    "ImageValueDataModule",
    "MIT67DataModule",
    "MedMNISTDataModule",
    "OmniglotDataModule",
    "OxfordPetsDataModule",
    "PictureDataModule",
    "StanfordDogsDataModule",
    "TextDataModule",
]

"""Data sets, samplers and views, as torch data sets and plain records: no framework is needed.

What an mm config names, such as ``mixplug.VideoClips``, is in :mod:`mixplug.hosts.mm.datasets`.
"""

from mixplug.data.clip_samplers import ClipSampler
from mixplug.data.clips import VideoClips
from mixplug.data.cub import Birds, birds
from mixplug.data.davis import Video, davis_videos
from mixplug.data.digit_scenes import Scene, scenes
from mixplug.data.digits import digits
from mixplug.data.got10k import GOT10k, TrackingSequence
from mixplug.data.image_folders import Crops, Labeled, image_folders
from mixplug.data.image_views import ImageViews
from mixplug.data.multicrop import MultiCrop
from mixplug.data.noise import Noise
from mixplug.data.office_home import OpenDomain, open_domain
from mixplug.data.open_readers import OpenReaders
from mixplug.data.retrieval import RetrievalSet, retrieval_set
from mixplug.data.samplers import ClassBalancedSampler, KeyedSampler, MPerClassSampler
from mixplug.data.shipped import shipped_clip
from mixplug.data.toy_scenes import write_scenes
from mixplug.data.tracking_pairs import Jitter, TrackingPairs
from mixplug.data.unlabeled import Unlabeled
from mixplug.data.videos import find_videos
from mixplug.data.voc import VOCImage, voc2012
from mixplug.data.walking_tours import TOURS, Tour, tour

__all__ = [
    "Birds",
    "ClassBalancedSampler",
    "ClipSampler",
    "Crops",
    "GOT10k",
    "ImageViews",
    "Jitter",
    "KeyedSampler",
    "Labeled",
    "MPerClassSampler",
    "MultiCrop",
    "Noise",
    "OpenDomain",
    "OpenReaders",
    "RetrievalSet",
    "Scene",
    "TOURS",
    "Tour",
    "TrackingPairs",
    "TrackingSequence",
    "Unlabeled",
    "VOCImage",
    "Video",
    "VideoClips",
    "birds",
    "davis_videos",
    "digits",
    "find_videos",
    "image_folders",
    "open_domain",
    "retrieval_set",
    "scenes",
    "shipped_clip",
    "tour",
    "voc2012",
    "write_scenes",
]

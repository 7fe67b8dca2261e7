"""Imported once by the server that workers are forked from: what a cell needs; starts nothing."""

import datasets  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import cpm_tune.bench.worker
import cpm_tune.data.store
import cpm_tune.engine
import cpm_tune.score
import cpm_tune.train  # noqa: F401
from cpm_tune.backbone.tokenizer import make_segmenter
from cpm_tune.delta import models  # noqa: F401  imports OpenDelta

make_segmenter().initialize()

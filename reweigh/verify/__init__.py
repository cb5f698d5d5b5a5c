"""Proof that the estimators are what they say: the library's results beside exact ground truth."""

from reweigh.verify.check import TOLERANCE as TOLERANCE
from reweigh.verify.check import Row as Row
from reweigh.verify.check import verify as verify
from reweigh.verify.golden import load as load
from reweigh.verify.table import print_table as print_table

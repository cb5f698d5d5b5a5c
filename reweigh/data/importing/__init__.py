"""Logs from trajectories that others recorded."""

from reweigh.data.importing.detect import READERS as READERS
from reweigh.data.importing.detect import detect as detect
from reweigh.data.importing.layout import Layout as Layout
from reweigh.data.importing.report import ImportReport as ImportReport
from reweigh.data.importing.source import Source as Source
from reweigh.data.importing.write import import_log as import_log
from reweigh.data.importing.write import with_log_prob_behaviour as with_log_prob_behaviour

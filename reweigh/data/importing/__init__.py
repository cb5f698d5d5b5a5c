"""Logs from trajectories that others recorded."""

from typing import TYPE_CHECKING

from reweigh.lazy import lazy_names

if TYPE_CHECKING:
    from reweigh.data.importing.detect import READERS as READERS
    from reweigh.data.importing.layout import Layout as Layout
    from reweigh.data.importing.report import ImportReport as ImportReport
    from reweigh.data.importing.source import Source as Source
    from reweigh.data.importing.write import import_log as import_log
    from reweigh.data.importing.write import with_log_prob_behaviour as with_log_prob_behaviour

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ImportReport": "reweigh.data.importing.report:ImportReport",
        "Layout": "reweigh.data.importing.layout:Layout",
        "READERS": "reweigh.data.importing.detect:READERS",
        "Source": "reweigh.data.importing.source:Source",
        "import_log": "reweigh.data.importing.write:import_log",
        "with_log_prob_behaviour": "reweigh.data.importing.write:with_log_prob_behaviour",
    },
)

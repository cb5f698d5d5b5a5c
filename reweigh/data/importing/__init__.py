"""Logs from trajectories that others recorded."""

from typing import TYPE_CHECKING

from reweigh.lazy import lazy_names

if TYPE_CHECKING:
    from reweigh.data.importing.layout import ImportReport as ImportReport
    from reweigh.data.importing.layout import Layout as Layout
    from reweigh.data.importing.layout import Source as Source
    from reweigh.data.importing.write import READERS as READERS
    from reweigh.data.importing.write import import_log as import_log
    from reweigh.data.importing.write import open_source as open_source
    from reweigh.data.importing.write import with_log_prob_behaviour as with_log_prob_behaviour

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ImportReport": "reweigh.data.importing.layout:ImportReport",
        "Layout": "reweigh.data.importing.layout:Layout",
        "READERS": "reweigh.data.importing.write:READERS",
        "Source": "reweigh.data.importing.layout:Source",
        "import_log": "reweigh.data.importing.write:import_log",
        "open_source": "reweigh.data.importing.write:open_source",
        "with_log_prob_behaviour": "reweigh.data.importing.write:with_log_prob_behaviour",
    },
)

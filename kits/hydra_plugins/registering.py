"""The callback that makes the plugins known to Hydra; conf/train.yaml names it."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback


class RegisterPlugins(Callback):
    """A search-path plugin that makes our plugins known before Hydra looks for them.

    The configuration names the sweeper and the launcher.
    """

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Enter them under the names that conf/hydra/ gives them."""
        from kits.hydra_plugins.grid import GridSweeper
        from kits.hydra_plugins.launcher import ProcessLauncher
        from kits.hydra_plugins.sweeper import TPESweeper

        # Hydra takes plugins from the namespace package `hydra_plugins` alone, which would be a second folder beside kits/.
        for plugin in (ProcessLauncher, GridSweeper, TPESweeper):
            Plugins.instance().class_name_to_class[f"hydra_plugins.kits.{plugin.__name__}"] = plugin

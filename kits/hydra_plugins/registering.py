"""The plugins made known to Hydra; conf/train.yaml names this callback."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback


class RegisterPlugins(Callback):
    """A callback that makes our plugins known before Hydra looks for those of the configuration."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Enter them under the names that conf/hydra/ gives them."""
        # Here, when Hydra has loaded its own plugins: it does so anew, and the base of ours would be another class.
        from kits.hydra_plugins.grid import GridSweeper
        from kits.hydra_plugins.launcher import ProcessLauncher
        from kits.hydra_plugins.sweeper import TPESweeper

        # Hydra takes plugins from the namespace package `hydra_plugins` alone, which would be a second folder beside kits/.
        for plugin in (ProcessLauncher, GridSweeper, TPESweeper):
            Plugins.instance().class_name_to_class[f"hydra_plugins.kits.{plugin.__name__}"] = plugin

"""Agents whose own work is next to nothing, so that what is measured is everything around it."""

from __future__ import annotations

from creamas_sc import CreativeAgent, Environment, expose


class Tally(CreativeAgent):
    """Counts its acts."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.count = 0

    @expose
    async def act(self) -> int:
        self.count += 1
        return self.count

    @expose
    def get_count(self) -> int:
        return self.count

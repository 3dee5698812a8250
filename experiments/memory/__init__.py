"""Which core remembers: small tasks that nobody solves without memory, and the command that trains cores on them.

`tasks` are pure functions; `settings` say what one cell of a table is, `grid` which cells there are, `training` makes
one, `readings` looks into the core meanwhile, `results` keeps what came out and `report` shows it.
"""

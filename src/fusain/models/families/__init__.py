"""One file per family: a kind of model that can be learnt."""

"""`python -m mrl_search`, also what `accelerate launch -m mrl_search train …` starts."""

from mrl_search.cli.start import main

main()

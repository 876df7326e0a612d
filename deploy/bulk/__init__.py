"""`postroad bulk run`: a CSV file as a campaign, each of its rows once, however often the command is repeated."""

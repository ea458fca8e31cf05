"""How the coordinator trains, method by method; only the list of methods imports them."""

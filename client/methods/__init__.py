"""How a site answers, method by method; only the list of methods imports them."""

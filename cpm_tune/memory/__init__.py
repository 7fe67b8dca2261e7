"""How much memory a run needs, and the error of a run that has too little."""

"""How much memory a run needs, and the sentence for a run that has too little."""

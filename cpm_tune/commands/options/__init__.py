"""Every command's options, description and examples; light, for answers without delay."""

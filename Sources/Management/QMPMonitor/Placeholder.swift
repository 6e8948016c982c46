// Placeholder so that the empty module builds; the first real file of the module replaces it.

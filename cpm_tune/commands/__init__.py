"""One module per command, `run(options)`, and in options/ what its command line may say."""

"""A first look at semshare: one stored document, six related prompts, one restart.

    python -m semshare.quickstart --semshared PATH --semsharectl PATH --data_dir DIR
    python -m semshare.quickstart --address HOST:PORT

The second form uses a broker that runs already, and leaves out the restart.
"""

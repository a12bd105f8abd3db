"""The server of a gallery: one warm process that searches for `matir find`, and an HTTP API.

`matir find` imports `searcher`, `client` and `runtime`, which load neither Starlette nor uvicorn.

    process   sockets, signals, the runtime file
    app       routes, behind `guard`, which refuses the requests of strangers
    jobs      searches in threads of their own, with the models that `engines` keeps loaded
    searcher  a search by the server if there is one, else by this process
    messages  what goes through the socket between `client` and `app`
"""

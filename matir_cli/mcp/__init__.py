"""`matir mcp`: tools for agents by the Model Context Protocol, on standard input and output.

Only the command `matir mcp` imports this package, which needs the optional package `mcp`.

    process    standard streams, signals, the protocol's server
    tools      the tools by name, their schemas, and their errors as one line
    searches   searches, by the gallery's server if one runs, and their results page by page
    saving     masks and cut-outs into the one `folder` that was named at the start
    pictures   photos with outlined objects, and contact sheets, within bounds
    arguments  what a client may ask; `records`, what it is answered
"""

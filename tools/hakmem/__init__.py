"""The command `hakmem`, made of one module for each of its subcommands.

    cli         which subcommand; what goes wrong is one line and a status
    options     a subcommand's options: parsed, and listed by --help
    places      where the libraries and our helper programs are
    programs    what a program is, and whether preloading can reach it
    allocators  other allocators that can be preloaded, by name
    adapters    an interpreter's command line, changed for its adapter
    run compare top doctor profile record replay    the subcommands
    child       a program that runs while its command waits
    measure     a run of a program: time, memory, faults
    share       the pages in which processes show their statistics
    live        a profile of a process that runs, asked for by its page
    symbols     which function of a process an address is in
    profiles    a profile, and its forms
    processes   what /proc says of a process
    diagnose    from looks at a process to what is the matter with it
    screen      top's screen
    picture     the bars of compare, as SVG and HTML
    curves      the lines of replay, as SVG
    words       sizes, numbers and tables as people read them

Python 3.9 and its standard library alone.
"""

# The launcher says: where libraries are looked for, in this order; the version.
LIBRARIES = ()
VERSION = "?"

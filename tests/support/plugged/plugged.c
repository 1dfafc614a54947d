/*
 * plugged.c - a library to be closed: the same code at the same place, whichever FRAME
 * it is compiled with, but for how large the frame is.
 */
__attribute__((visibility("default"))) long plugged(long (*back)(void), long n);

long plugged(long (*back)(void), long n)
{
    volatile char room[FRAME];

    room[n] = 1;
    return back() + room[n];
}

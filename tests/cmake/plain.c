/* plain.c - a program that leaves its mallocs to the C library's stdio. */
#include <stdio.h>

int main(void)
{
    puts("plain");
    return 0;
}

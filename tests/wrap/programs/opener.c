/* opener.c - uses what libopener.so opened before there was a main. */
#include "program.h"

extern void *opener_plugin;

int main(void)
{
    void (*take)(void *);

    *(void **)&take = dlsym(opener_plugin, "plugin_take");
    NEED(take != NULL);
    take(malloc(100));
    take(strdup("a text"));
    puts("well");
    return 0;
}

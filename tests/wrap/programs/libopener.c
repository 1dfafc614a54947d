/*
 * libopener.c - a library whose constructor runs before all others (-z
 * initfirst) and opens a plugin, which its RUNPATH alone leads to.
 */
#include "program.h"

void *opener_plugin;

__attribute__((constructor)) static void open_it(void)
{
    opener_plugin = dlopen("libplugin.so", RTLD_NOW | RTLD_DEEPBIND);
    NEED(opener_plugin != NULL);
}

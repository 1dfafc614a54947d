/*
 * libdeny.c - a system that lets no page be made writable, once the file that
 * DENY names exists.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* nginx writes its title over the environment. */
static char *deny;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("DENY");

    deny = name != NULL ? strdup(name) : NULL;
}

int mprotect(void *start, size_t size, int protection)
{
    if ((protection & PROT_WRITE) != 0 && deny != NULL &&
        access(deny, F_OK) == 0) {
        errno = EACCES;
        return -1;
    }
    return (int)syscall(SYS_mprotect, start, size, protection);
}

/*
 * libcrypt.c - in place of the library that nginx is linked with: a word in its
 * code holds the address of free, where nobody can patch it.
 */
#include <stddef.h>

char *crypt_r(const char *key, const char *setting, void *data);

char *crypt_r(const char *key, const char *setting, void *data)
{
    (void)key;
    (void)setting;
    (void)data;
    return NULL;
}

__asm__(".text\n.p2align 3\n.quad free\n");

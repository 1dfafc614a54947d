/*
 * callers.c - the functions of libc that resize or free a block that their
 * caller has allocated. Every object's slots for them lead here: such a block
 * may be ours, and must not reach libc.
 *
 * A block of libc's, or none, is passed on as it is. One of ours is grown by
 * us, or first moved into a block of libc's; a caller whose frees come to us
 * doesn't notice.
 *
 * Not included: the xdr_* functions, which free with XDR_FREE, because programs
 * have not been able to link them since glibc 2.32; and functions that would
 * accept a structure filled in by the caller where the standard demands one of
 * libc's (globfree).
 */
#include <argz.h>
#include <envz.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "names.h"
#include "embed.h"

/* Moves a block of ours, of `size` bytes, to libc. False: no memory. */
static bool move_out(void *at, size_t size)
{
    void *p, *moved;

    memcpy(&p, at, sizeof(p));
    if (p == NULL || !haki_embed_owns(p)) {
        return true;
    }
    moved = malloc(size != 0 ? size : 1);
    if (moved == NULL) {
        return false;
    }
    memcpy(moved, p, haki_min(size, hak_ngx_malloc_usable_size(p)));
    hak_ngx_free(p);
    memcpy(at, &moved, sizeof(moved));
    return true;
}

/* ---- lines ------------------------------------------------------------------ */

ssize_t hak_ngx_any_getdelim(char **line, size_t *room, int end, FILE *file)
{
    return line != NULL && haki_embed_owns(*line)
               ? hak_ngx_getdelim(line, room, end, file)
               : getdelim(line, room, end, file);
}

ssize_t hak_ngx_any_getline(char **line, size_t *room, FILE *file)
{
    return hak_ngx_any_getdelim(line, room, '\n', file);
}

/* ---- vectors of strings ------------------------------------------------------ */

int hak_ngx_argz_add(char **argz, size_t *length, const char *text)
{
    return move_out(argz, *length) ? argz_add(argz, length, text) : ENOMEM;
}

int hak_ngx_argz_add_sep(char **argz, size_t *length, const char *text,
                         int separator)
{
    return move_out(argz, *length) ? argz_add_sep(argz, length, text, separator)
                                   : ENOMEM;
}

int hak_ngx_argz_append(char **argz, size_t *length, const char *more,
                        size_t more_length)
{
    return move_out(argz, *length)
               ? argz_append(argz, length, more, more_length)
               : ENOMEM;
}

/* It can't fail, so it must not need memory. */
void hak_ngx_argz_delete(char **argz, size_t *length, char *entry)
{
    size_t size;

    if (entry == NULL || !haki_embed_owns(*argz)) {
        argz_delete(argz, length, entry);
        return;
    }
    size = strlen(entry) + 1;
    *length -= size;
    memmove(entry, entry + size, *length - (size_t)(entry - *argz));
    if (*length == 0) {
        hak_ngx_free(*argz);
        *argz = NULL;
    }
}

/* `before` is one of the strings, or NULL. */
int hak_ngx_argz_insert(char **argz, size_t *length, char *before,
                        const char *entry)
{
    size_t at = before != NULL ? (size_t)(before - *argz) : 0;

    if (!move_out(argz, *length)) {
        return ENOMEM;
    }
    return argz_insert(argz, length, before != NULL ? *argz + at : NULL, entry);
}

int hak_ngx_argz_replace(char **argz, size_t *length, const char *text,
                         const char *with, unsigned *count)
{
    return move_out(argz, *length)
               ? argz_replace(argz, length, text, with, count)
               : ENOMEM;
}

int hak_ngx_envz_add(char **envz, size_t *length, const char *name,
                     const char *value)
{
    return move_out(envz, *length) ? envz_add(envz, length, name, value)
                                   : ENOMEM;
}

int hak_ngx_envz_merge(char **envz, size_t *length, const char *more,
                       size_t more_length, int override)
{
    return move_out(envz, *length)
               ? envz_merge(envz, length, more, more_length, override)
               : ENOMEM;
}

void hak_ngx_envz_remove(char **envz, size_t *length, const char *name)
{
    char *entry = envz_entry(*envz, *length, name);

    if (entry != NULL) {
        hak_ngx_argz_delete(envz, length, entry);
    }
}

/* ---- regular expressions ------------------------------------------------------ */

/* The caller may have allocated both tables, and regfree frees them. */
void hak_ngx_regfree(regex_t *pattern)
{
    if (haki_embed_owns(pattern->fastmap)) {
        hak_ngx_free(pattern->fastmap);
        pattern->fastmap = NULL;
    }
    if (haki_embed_owns(pattern->translate)) {
        hak_ngx_free(pattern->translate);
        pattern->translate = NULL;
    }
    regfree(pattern);
}

/* libc grows the buffer that it finds, and regfree frees it. */
const char *hak_ngx_re_compile_pattern(const char *text, size_t length,
                                       regex_t *pattern)
{
    void *buffer = pattern->buffer;

    if (!move_out(&buffer, pattern->allocated)) {
        return "Memory exhausted"; /* the text of regerror */
    }
    pattern->buffer = buffer;
    return re_compile_pattern(text, length, pattern);
}

/* libc grows the registers that it finds. */
static bool registers_moved(struct re_registers *registers)
{
    size_t size;

    if (registers == NULL || (!haki_embed_owns(registers->start) &&
                              !haki_embed_owns(registers->end))) {
        return true;
    }
    size = registers->num_regs * sizeof(*registers->start);
    return move_out(&registers->start, size) && move_out(&registers->end, size);
}

enum { REGEX_FAILED = -2 };

/* Registers of a fixed size (REGS_FIXED) stay where they are. */
static bool ready(const regex_t *pattern, struct re_registers *registers)
{
    return pattern->regs_allocated != 1 /* REGS_REALLOCATE */ ||
           registers_moved(registers);
}

regoff_t hak_ngx_re_match(regex_t *pattern, const char *text, regoff_t length,
                          regoff_t start, struct re_registers *registers)
{
    return ready(pattern, registers)
               ? re_match(pattern, text, length, start, registers)
               : REGEX_FAILED;
}

regoff_t hak_ngx_re_match_2(regex_t *pattern, const char *text1,
                            regoff_t length1, const char *text2,
                            regoff_t length2, regoff_t start,
                            struct re_registers *registers, regoff_t stop)
{
    return ready(pattern, registers)
               ? re_match_2(pattern, text1, length1, text2, length2, start,
                            registers, stop)
               : REGEX_FAILED;
}

regoff_t hak_ngx_re_search(regex_t *pattern, const char *text, regoff_t length,
                           regoff_t start, regoff_t range,
                           struct re_registers *registers)
{
    return ready(pattern, registers)
               ? re_search(pattern, text, length, start, range, registers)
               : REGEX_FAILED;
}

regoff_t hak_ngx_re_search_2(regex_t *pattern, const char *text1,
                             regoff_t length1, const char *text2,
                             regoff_t length2, regoff_t start, regoff_t range,
                             struct re_registers *registers, regoff_t stop)
{
    return ready(pattern, registers)
               ? re_search_2(pattern, text1, length1, text2, length2, start,
                             range, registers, stop)
               : REGEX_FAILED;
}

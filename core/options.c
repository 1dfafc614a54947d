/*
 * options.c - settings from the environment, read once.
 */
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "msg.h"

enum option_type { BOOL, SIZE, WORD };

struct option {
    enum option_type type;
    const char *env;
    size_t initial, least, most;
    const char *words; /* WORD: the valid ones, a space between */
};

static const struct option table[HAK_OPTIONS] = {
#define HAK_OPTION(type, name, env, initial, least, most, words, help)         \
    {type, env, initial, least, most, words},
#include "options.def"
#undef HAK_OPTION
};

static size_t values[HAK_OPTIONS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool parse_bool(const char *text, size_t *value)
{
    static const char *const words[] = {"0",  "1",   "off",   "on",
                                        "no", "yes", "false", "true"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = i & 1;
            return true;
        }
    }
    return false;
}

/* A decimal number with an optional K, M, G (and an optional B or iB). */
static bool parse_size(const char *text, size_t *value)
{
    char *end;
    unsigned long long number;
    int shift = 0;

    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    number = strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    switch (*end) {
    case 'k':
    case 'K': shift = 10; break;
    case 'm':
    case 'M': shift = 20; break;
    case 'g':
    case 'G': shift = 30; break;
    default: break;
    }
    if (shift != 0) {
        end++;
        if (strcasecmp(end, "b") == 0 || strcasecmp(end, "ib") == 0) {
            end = "";
        }
    }
    *value = (size_t)number << shift;
    return *end == '\0' && (*value >> shift) == number;
}

/* The place of text among `words`, or -1. */
static long find_word(const char *words, const char *text)
{
    size_t length = strlen(text);

    for (long i = 0; *words != '\0'; i++) {
        size_t word = strcspn(words, " ");

        if (word == length && strncasecmp(words, text, word) == 0) {
            return i;
        }
        words += word + strspn(words + word, " ");
    }
    return -1;
}

/* The i-th of `words`; *length is its length. */
static const char *nth_word(const char *words, size_t i, int *length)
{
    while (i-- > 0) {
        words += strcspn(words, " ") + 1;
    }
    *length = (int)strcspn(words, " ");
    return words;
}

static void read_word(const struct option *option, const char *text,
                      size_t *value)
{
    long place = find_word(option->words, text);
    const char *initial;
    int length;

    if (place >= 0) {
        *value = (size_t)place;
        return;
    }
    initial = nth_word(option->words, option->initial, &length);
    hak_warn("%s=%s: not one of %s; using %.*s", option->env, text,
             option->words, length, initial);
}

static void read_option(const struct option *option, size_t *value)
{
    const char *text = secure_getenv(option->env);
    size_t parsed;

    *value = option->initial;
    if (text == NULL || *text == '\0') {
        return;
    }
    if (option->type == BOOL) {
        if (parse_bool(text, &parsed)) {
            *value = parsed;
        } else {
            hak_warn("%s=%s: not one of 0 1 off on no yes false true; "
                     "using %zu",
                     option->env, text, option->initial);
        }
    } else if (option->type == WORD) {
        read_word(option, text, value);
    } else if (!parse_size(text, &parsed)) {
        hak_warn("%s=%s: not a size in bytes (a number, then K, M or G); "
                 "using %zu",
                 option->env, text, option->initial);
    } else if (parsed < option->least || parsed > option->most) {
        hak_warn("%s=%s: must be from %zu to %zu bytes; using %zu", option->env,
                 text, option->least, option->most, option->initial);
    } else {
        *value = parsed;
    }
}

static void read_all(void)
{
    int saved = errno;

    for (int i = 0; i < HAK_OPTIONS; i++) {
        read_option(&table[i], &values[i]);
    }
    errno = saved;
}

size_t hak_option(enum hak_option option)
{
    pthread_once(&once, read_all);
    return values[option];
}

#ifdef HAK_TESTING
void hak_option_test_reload(void)
{
    pthread_once(&once, read_all);
    read_all();
}
#endif

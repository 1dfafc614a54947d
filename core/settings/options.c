/*
 * options.c - settings from the environment, read once.
 */
#include "settings/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/msg.h"

static const struct hak_option_row options_rows[HAK_OPTIONS] = {
#define HAK_OPTION HAK_OPTION_ROW
#include "settings/options.def"
#undef HAK_OPTION
};

HAK_OPTIONS_TABLE(options_core, options_rows);

/* Former names of variables, read where the new one is not set. */
static const struct {
    const char *env, *old;
} options_renamed[] = {{"HAKMEM_HUGE_PAGES", "HAKMEM_HUGE"}};

/*
 * The directory of HAK_OPT_cgroup; written by the thread that reads the table.
 */
static char options_cgroup_dir[HAK_OPTION_PATH];

/* Of HAK_OPT_profile, likewise. */
static char options_profile_file[HAK_OPTION_PATH];

/* ---- one value ---------------------------------------------------------- */

static bool options_parse_bool(const char *text, size_t *value)
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

/* Decimal digits; *end is what follows them. */
static bool options_parse_digits(const char *text, size_t *value, char **end)
{
    unsigned long long number;

    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    number = strtoull(text, end, 10);
    *value = (size_t)number;
    return errno == 0;
}

static bool options_parse_int(const char *text, size_t *value)
{
    char *end;

    return options_parse_digits(text, value, &end) && *end == '\0';
}

/* A decimal number with an optional K, M, G, T (and an optional B or iB). */
static bool options_parse_size(const char *text, size_t *value)
{
    char *end;
    size_t number;
    int shift = 0;

    if (!options_parse_digits(text, &number, &end)) {
        return false;
    }
    switch (*end) {
    case 'k':
    case 'K': shift = 10; break;
    case 'm':
    case 'M': shift = 20; break;
    case 'g':
    case 'G': shift = 30; break;
    case 't':
    case 'T': shift = 40; break;
    default: break;
    }
    if (shift != 0) {
        end++;
        if (strcasecmp(end, "b") == 0 || strcasecmp(end, "ib") == 0) {
            end = "";
        }
    }
    *value = number << shift;
    return *end == '\0' && (*value >> shift) == number;
}

/* The same, or a percentage: "80%". */
static bool options_parse_share(const char *text, size_t *value)
{
    char *end;

    if (options_parse_digits(text, value, &end) && strcmp(end, "%") == 0) {
        *value = HAK_PERCENT | haki_min(*value, HAK_PERCENT - 1);
        return true;
    }
    return options_parse_size(text, value);
}

/* Keeps a copy of a directory's name: the environment may be overwritten. */
static bool options_parse_dir(const char *text, size_t *value)
{
    size_t length = strlen(text);

    if (*text != '/' || length >= sizeof(options_cgroup_dir)) {
        return false;
    }
    memcpy(options_cgroup_dir, text, length + 1);
    *value = 1;
    return true;
}

/* Whether text ends in one of `words`, of which there is a space between. */
static bool options_ends_in(const char *words, const char *text)
{
    size_t length = strlen(text);

    while (*words != '\0') {
        size_t n = strcspn(words, " ");

        if (length > n && strncmp(text + length - n, words, n) == 0) {
            return true;
        }
        words += n + strspn(words + n, " ");
    }
    return false;
}

/* The name of a file; HAK_OPT_profile's is kept, an adapter reads its own itself. */
static bool options_parse_file(const struct hak_option_row *row,
                               const char *text, size_t *value)
{
    size_t length = strlen(text);

    if (!options_ends_in(row->words, text) || length >= HAK_OPTION_PATH) {
        return false;
    }
    if (strcmp(row->env, options_rows[HAK_OPT_profile].env) == 0) {
        memcpy(options_profile_file, text, length + 1);
    }
    *value = 1;
    return true;
}

/*
 * Finds the place of `text` among `words`. A WORD whose first two are 0 and 1
 * takes the words of a BOOL as well.
 */
static bool options_parse_word(const char *words, const char *text,
                               size_t *value)
{
    const char *word = words;
    size_t length = strlen(text);

    for (size_t i = 0; *word != '\0'; i++) {
        size_t n = strcspn(word, " ");

        if (n == length && strncasecmp(word, text, n) == 0) {
            *value = i;
            return true;
        }
        word += n + strspn(word + n, " ");
    }
    return strncmp(words, "0 1 ", 4) == 0 && options_parse_bool(text, value);
}

/* An INT that is mainly a switch: its unit is "0 1". */
static bool options_option_is_switch(const struct hak_option_row *row)
{
    return row->type == HAK_OPTION_INT && strcmp(row->words, "0 1") == 0;
}

/* The i-th of `words`; *length is its length. */
static const char *options_nth_word(const char *words, size_t i, int *length)
{
    while (i-- > 0) {
        words += strcspn(words, " ") + 1;
    }
    *length = (int)strcspn(words, " ");
    return words;
}

static bool options_parse(const struct hak_option_row *row, const char *text,
                          size_t *value)
{
    switch (row->type) {
    case HAK_OPTION_BOOL: return options_parse_bool(text, value);
    case HAK_OPTION_INT:
        return options_parse_int(text, value) ||
               (options_option_is_switch(row) &&
                options_parse_bool(text, value));
    case HAK_OPTION_SIZE: return options_parse_size(text, value);
    case HAK_OPTION_SHARE: return options_parse_share(text, value);
    case HAK_OPTION_DIR: return options_parse_dir(text, value);
    case HAK_OPTION_FILE: return options_parse_file(row, text, value);
    default: return options_parse_word(row->words, text, value);
    }
}

/* Whether a parsed value is within bounds. */
static bool options_is_within(const struct hak_option_row *row, size_t value)
{
    if (row->type == HAK_OPTION_SHARE && (value & HAK_PERCENT) != 0) {
        return value - HAK_PERCENT >= 1 && value - HAK_PERCENT <= 100;
    }
    if (row->type == HAK_OPTION_SHARE && value == 0) {
        return true; /* none */
    }
    return value >= row->least && value <= row->most;
}

/* The same for options whose default is to have no value. */
static HAK_COLD void options_complain_none(const struct hak_option_row *row,
                                           const char *text, bool parsed)
{
    if (row->type == HAK_OPTION_DIR) {
        haki_warn("%s=%.100s: not the absolute path of a directory (of less "
                  "than %d bytes); using the process's own",
                  row->env, text, HAK_OPTION_PATH);
    } else if (parsed) {
        haki_warn("%s=%s: must be 0 (none), from %zu to %zu bytes, or from 1%% "
                  "to 100%%; there is no limit",
                  row->env, text, row->least, row->most);
    } else {
        haki_warn(
            "%s=%s: neither a size in bytes (a number, then K, M, G or T) "
            "nor a percentage (80%%); there is no limit",
            row->env, text);
    }
}

/* Says why the text is not a value of that option, and what is used instead. */
static HAK_COLD void options_complain(const struct hak_option_row *row,
                                      const char *text, bool parsed)
{
    bool size = row->type == HAK_OPTION_SIZE;
    const char *initial;
    int length;

    if (row->type == HAK_OPTION_FILE) {
        haki_warn("%s=%.100s: must end in one of %s (and have less than %d "
                  "bytes); no file is written",
                  row->env, text, row->words, HAK_OPTION_PATH);
    } else if (row->type == HAK_OPTION_SHARE || row->type == HAK_OPTION_DIR) {
        options_complain_none(row, text, parsed);
    } else if (parsed && size && *row->words != '\0') {
        haki_warn("%s=%s: must be from %zu to %zu bytes; using %s", row->env,
                  text, row->least, row->most, row->words);
    } else if (parsed) {
        haki_warn("%s=%s: must be from %zu to %zu %s; using %zu", row->env,
                  text, row->least, row->most, size ? "bytes" : row->words,
                  row->initial);
    } else if (row->type == HAK_OPTION_WORD) {
        initial = options_nth_word(row->words, row->initial, &length);
        haki_warn("%s=%s: not one of %s; using %.*s", row->env, text,
                  row->words, length, initial);
    } else if (row->type == HAK_OPTION_BOOL || options_option_is_switch(row)) {
        haki_warn("%s=%s: not one of 0 1 off on no yes false true; using %zu",
                  row->env, text, row->initial);
    } else if (size && *row->words != '\0') {
        haki_warn("%s=%s: not a size in bytes (a number, then K, M, G or T); "
                  "using %s",
                  row->env, text, row->words);
    } else if (size) {
        haki_warn("%s=%s: not a size in bytes (a number, then K, M, G or T); "
                  "using %zu",
                  row->env, text, row->initial);
    } else {
        haki_warn("%s=%s: not a whole number (of %s); using %zu", row->env,
                  text, row->words, row->initial);
    }
}

/* The value of a variable; NULL: it is not set, or empty. */
static const char *options_text(const char *env)
{
    const char *text = secure_getenv(env);

    return text != NULL && *text != '\0' ? text : NULL;
}

/*
 * The text of a row's variable; `env` becomes the name under which it was
 * found.
 */
static const char *options_find(struct hak_option_row *row)
{
    const char *text = options_text(row->env);

    for (size_t i = 0; i < sizeof(options_renamed) / sizeof(options_renamed[0]);
         i++) {
        if (text == NULL && strcmp(row->env, options_renamed[i].env) == 0) {
            row->env = options_renamed[i].old;
            text = options_text(row->env);
        }
    }
    return text;
}

static size_t options_read_row(const struct hak_option_row *from, bool aloud)
{
    struct hak_option_row copy = *from, *row = &copy;
    const char *text = options_find(row);
    size_t value = row->initial; /* stays if nothing is parsed */
    bool parsed;

    if (text == NULL) {
        return row->initial;
    }
    if ((row->type == HAK_OPTION_DIR || row->type == HAK_OPTION_FILE) &&
        !aloud) {
        return row->initial; /* another thread is writing its value */
    }
    parsed = options_parse(row, text, &value);
    if (parsed && options_is_within(row, value)) {
        return value;
    }
    if (aloud) {
        options_complain(row, text, parsed);
    }
    return row->initial;
}

/* ---- a table ------------------------------------------------------------ */

/*
 * The first call reads the table. A caller that comes meanwhile (another
 * thread, a signal handler, the child of a fork at that moment) can't wait for
 * that and reads the one row by itself, without messages.
 */
static HAK_COLD size_t options_get_unread(struct hak_options *options,
                                          size_t which)
{
    unsigned state = HAK_OPTIONS_UNREAD;
    size_t value;
    int saved = errno;

    if (environ == NULL) {
        return options->rows[which].initial;
    }
    if (atomic_compare_exchange_strong(&options->state, &state,
                                       HAK_OPTIONS_READING)) {
        for (size_t i = 0; i < options->count; i++) {
            options->values[i] = options_read_row(&options->rows[i], true);
        }
        atomic_store_explicit(&options->state, HAK_OPTIONS_READ,
                              memory_order_release);
        value = options->values[which];
    } else {
        value = options_read_row(&options->rows[which], false);
    }
    errno = saved;
    return value;
}

size_t haki_options_get(struct hak_options *options, size_t which)
{
    if (HAK_LIKELY(atomic_load_explicit(&options->state,
                                        memory_order_acquire) ==
                   HAK_OPTIONS_READ)) {
        return options->values[which];
    }
    return options_get_unread(options, which);
}

size_t haki_option(enum hak_option option)
{
    return haki_options_get(&options_core, option);
}

const char *haki_option_cgroup(void)
{
    return haki_option(HAK_OPT_cgroup) != 0 ? options_cgroup_dir : NULL;
}

const char *haki_option_profile(void)
{
    return haki_option(HAK_OPT_profile) != 0 ? options_profile_file : NULL;
}

bool haki_options_ready(void)
{
    haki_options_get(&options_core, 0);
    return atomic_load(&options_core.state) != HAK_OPTIONS_UNREAD;
}

#ifdef HAK_TESTING
void haki_option_test_reload(void)
{
    atomic_store(&options_core.state, HAK_OPTIONS_UNREAD);
    haki_option(0);
}
#endif

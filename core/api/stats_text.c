/*
 * stats_text.c - the statistics in words: a line each, a table, JSON, Prometheus.
 *
 * Nothing here allocates: texts go into the caller's buffer, and what
 * HAKMEM_SHOW_STATS prints into one of our own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/stats.h"
#include "base/msg.h"
#include "settings/options.h"
#include "range/range.h"

/* See HAK_INSIDE. */
HAK_INSIDE(haki_inside_stats_table, hak_stats_table);
HAK_INSIDE(haki_inside_stats_json, hak_stats_json);
HAK_INSIDE(haki_inside_stats_prometheus, hak_stats_prometheus);

enum statistic_kind { counter, gauge };

struct statistic {
    const char *name, *unit, *help;
    enum statistic_kind kind;
    size_t at;
};

static const struct statistic statistics[] = {
#define HAK_STAT(name, kind, unit, help)                                       \
    {#name, unit, help, kind, offsetof(hak_stats_t, name)},
#include <hakmem_stats.def>
#undef HAK_STAT
};

#define STATISTICS (sizeof(statistics) / sizeof(statistics[0]))

/* A text that grows behind the end of its buffer without being written. */
struct text {
    char *buf;
    size_t len, used;
};

static HAK_PRINTF(2, 3) void add(struct text *text, const char *format, ...)
{
    bool room = text->used < text->len;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(room ? text->buf + text->used : NULL,
                  room ? text->len - text->used : 0, format, args);
    va_end(args);
    text->used += n > 0 ? (size_t)n : 0;
}

static unsigned long long value(const hak_stats_t *stats, size_t i)
{
    uint64_t value;

    memcpy(&value, (const char *)stats + statistics[i].at, sizeof(value));
    return value;
}

/* ---- for programs ------------------------------------------------------- */

size_t hak_stats_text(char *buf, size_t len)
{
    struct text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    for (size_t i = 0; i < STATISTICS; i++) {
        add(&text, "%-18s %15llu %-5s  %s\n", statistics[i].name,
            value(&stats, i), statistics[i].unit, statistics[i].help);
    }
    return text.used;
}

size_t hak_stats_json(char *buf, size_t len)
{
    struct text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    add(&text, "{\"version\":%u", (unsigned)stats.version);
    for (size_t i = 0; i < STATISTICS; i++) {
        add(&text, ",\"%s\":%llu", statistics[i].name, value(&stats, i));
    }
    add(&text, "}");
    return text.used;
}

size_t hak_stats_prometheus(char *buf, size_t len)
{
    static const char *const kinds[] = {"counter", "gauge"};
    static const char *const ends[] = {"_total", ""};
    struct text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    for (size_t i = 0; i < STATISTICS; i++) {
        const struct statistic *statistic = &statistics[i];
        const char *end = ends[statistic->kind];

        add(&text, "# HELP hakmem_%s%s %s\n", statistic->name, end,
            statistic->help);
        add(&text, "# TYPE hakmem_%s%s %s\n", statistic->name, end,
            kinds[statistic->kind]);
        add(&text, "hakmem_%s%s %llu\n", statistic->name, end,
            value(&stats, i));
    }
    return text.used;
}

/* ---- for people --------------------------------------------------------- */

/* A number or size in words; short enough for any 64-bit value. */
struct words {
    char text[32];
};

/* 1234567 as 1,234,567. */
static struct words number(uint64_t n)
{
    struct words words;
    size_t at = sizeof(words.text);

    words.text[--at] = '\0';
    for (int digits = 0; digits == 0 || n != 0; digits++, n /= 10) {
        if (digits != 0 && digits % 3 == 0) {
            words.text[--at] = ',';
        }
        words.text[--at] = (char)('0' + n % 10);
    }
    memmove(words.text, words.text + at, sizeof(words.text) - at);
    return words;
}

/* 1258291 as 1.2 MB; a KB has 1024 bytes. */
static struct words bytes(uint64_t n)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    struct words words;
    uint64_t tenths;
    size_t unit = 0, shift;

    while (unit < 4 && n >> (10 * unit) >= 1024) {
        unit++;
    }
    shift = 10 * unit;
    tenths = ((n & ((UINT64_C(1) << shift) - 1)) * 10) >> shift;
    if (unit == 0) {
        snprintf(words.text, sizeof(words.text), "%u B", (unsigned)n);
    } else {
        snprintf(words.text, sizeof(words.text), "%llu.%u %s",
                 (unsigned long long)(n >> shift), (unsigned)tenths,
                 units[unit]);
    }
    return words;
}

static void add_lane(struct text *text, const char *name,
                     const uint64_t *allocs)
{
    struct hak_lane_counts lane;

    memcpy(&lane, allocs, sizeof(lane));
    add(text, "%-8s %17s %17s %11s %11s %11s\n", name, number(lane.allocs).text,
        number(lane.frees).text, bytes(lane.live_bytes).text,
        bytes(lane.peak_bytes).text, bytes(lane.held_bytes).text);
}

static void add_memory(struct text *text, const hak_stats_t *stats)
{
    add(text, "memory   %s window, %s mapped, %s resident, %s of it due back\n",
        bytes(stats->range_bytes).text, bytes(stats->committed_bytes).text,
        bytes(stats->populated_bytes).text, bytes(stats->due_bytes).text);
    add(text, "         %s given back in %s purges\n",
        bytes(stats->purged_bytes).text, number(stats->purges).text);
    add(text, "limit    %s, %s held; near it %s times, %s purges\n",
        stats->limit_bytes != 0 ? bytes(stats->limit_bytes).text : "none",
        bytes(stats->limit_used_bytes).text,
        number(stats->pressure_events).text, number(stats->limit_purges).text);
    add(text, "heaps    %s in use, %s parked, %s slabs, %s in bins\n",
        number(stats->heaps).text, number(stats->heaps_parked).text,
        number(stats->slabs).text, bytes(stats->kept_bytes).text);
    add(text, "work     %s refills, %s flushes, %s remote frees\n",
        number(stats->refills).text, number(stats->flushes).text,
        number(stats->remote_frees).text);
}

static void add_system(struct text *text, const hak_stats_t *stats)
{
    add(text, "system   %s blocks live, %s; handed on, by reason:\n",
        number(stats->system_live).text, bytes(stats->system_live_bytes).text);
    add(text,
        "         init %s, recursion %s, forced %s, large %s, aligned %s, "
        "memory %s, exited %s\n",
        number(stats->fallback_init).text,
        number(stats->fallback_recursion).text,
        number(stats->fallback_forced).text, number(stats->fallback_large).text,
        number(stats->fallback_aligned).text,
        number(stats->fallback_memory).text,
        number(stats->fallback_exited).text);
    add(text, "others   %s foreign frees, %s refused by a limit\n",
        number(stats->foreign_frees).text, number(stats->limit_refused).text);
}

/* Weak: a static program need not have it. */
extern __typeof__(dladdr) dladdr __attribute__((weak));

/*
 * The file that this core is in. A process may have several: an adapter's
 * beside a preloaded libhakmem.so's.
 */
static const char *home(void)
{
    Dl_info info;
    const char *slash;

    if (dladdr == NULL || dladdr(statistics, &info) == 0 ||
        info.dli_fname == NULL) {
        return program_invocation_short_name;
    }
    slash = strrchr(info.dli_fname, '/');
    return slash != NULL ? slash + 1 : info.dli_fname;
}

size_t hak_stats_table(char *buf, size_t len)
{
    struct text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    add(&text, "HAKMEM %s: %s, process %d, in %s\n", HAK_VERSION_STRING,
        program_invocation_short_name, (int)getpid(), home());
    add(&text, "%-8s %17s %17s %11s %11s %11s\n", "lane", "calls", "frees",
        "live", "peak", "held");
    add_lane(&text, "tiny", &stats.tiny_allocs);
    add_lane(&text, "pool", &stats.pool_allocs);
    add_lane(&text, "ace", &stats.ace_allocs);
    add_lane(&text, "huge", &stats.huge_allocs);
    add_memory(&text, &stats);
    add_system(&text, &stats);
    return text.used;
}

void haki_stats_report(int fd)
{
    static char text[16384]; /* the longest form takes half of it */
    static _Atomic(pid_t) printed;
    size_t form = haki_option(HAK_OPT_show_stats);
    size_t room = sizeof(text) - 1;
    size_t length;

    if (form == HAK_SHOW_NOT ||
        atomic_exchange(&printed, getpid()) == getpid()) {
        return;
    }
    if (form == HAK_SHOW_JSON) {
        length = haki_min(haki_inside_stats_json(text, room), room - 1);
        text[length++] = '\n';
    } else if (form == HAK_SHOW_PROM) {
        length = haki_min(haki_inside_stats_prometheus(text, room), room - 1);
    } else {
        length = haki_min(haki_inside_stats_table(text, room), room - 1);
    }
    haki_msg_write(fd, text, length);
}

/* The program ends, or the library is unloaded. */
__attribute__((destructor)) static void show_stats(void)
{
    haki_stats_report(haki_msg_fd());
}

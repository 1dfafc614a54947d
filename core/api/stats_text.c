/*
 * stats_text.c - the statistics as text: a line each, a table, JSON,
 * Prometheus.
 *
 * Nothing here allocates: text goes into the caller's buffer, and what
 * HAKMEM_SHOW_STATS prints into a static one.
 *
 * Tested by tests/unit/api/stats.c.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/profiling.h"
#include "api/share.h"
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

static const struct statistic stats_statistics[] = {
#define HAK_STAT(name, kind, unit, help)                                       \
    {#name, unit, help, kind, offsetof(hak_stats_t, name)},
#include <hakmem_stats.def>
#undef HAK_STAT
};

#define STATISTICS (sizeof(stats_statistics) / sizeof(stats_statistics[0]))

/*
 * A text that counts its length beyond the end of its buffer, without being
 * written there.
 */
struct stats_text {
    char *buf;
    size_t len, used;
};

static HAK_PRINTF(2, 3) void stats_add(struct stats_text *text,
                                       const char *format, ...)
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

static unsigned long long stats_value(const hak_stats_t *stats, size_t i)
{
    uint64_t value;

    memcpy(&value, (const char *)stats + stats_statistics[i].at, sizeof(value));
    return value;
}

/* ---- for programs ------------------------------------------------------- */

size_t hak_stats_text(char *buf, size_t len)
{
    struct stats_text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    for (size_t i = 0; i < STATISTICS; i++) {
        stats_add(&text, "%-18s %15llu %-5s  %s\n", stats_statistics[i].name,
                  stats_value(&stats, i), stats_statistics[i].unit,
                  stats_statistics[i].help);
    }
    return text.used;
}

size_t hak_stats_json(char *buf, size_t len)
{
    struct stats_text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    stats_add(&text, "{\"version\":%u", (unsigned)stats.version);
    for (size_t i = 0; i < STATISTICS; i++) {
        stats_add(&text, ",\"%s\":%llu", stats_statistics[i].name,
                  stats_value(&stats, i));
    }
    stats_add(&text, "}");
    return text.used;
}

size_t hak_stats_prometheus(char *buf, size_t len)
{
    static const char *const kinds[] = {"counter", "gauge"};
    static const char *const ends[] = {"_total", ""};
    struct stats_text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    for (size_t i = 0; i < STATISTICS; i++) {
        const struct statistic *statistic = &stats_statistics[i];
        const char *end = ends[statistic->kind];

        stats_add(&text, "# HELP hakmem_%s%s %s\n", statistic->name, end,
                  statistic->help);
        stats_add(&text, "# TYPE hakmem_%s%s %s\n", statistic->name, end,
                  kinds[statistic->kind]);
        stats_add(&text, "hakmem_%s%s %llu\n", statistic->name, end,
                  stats_value(&stats, i));
    }
    return text.used;
}

/* ---- for people --------------------------------------------------------- */

/* A number or size as text, large enough for any 64-bit value. */
struct words {
    char text[32];
};

/* 1234567 as 1,234,567. */
static struct words stats_number(uint64_t n)
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
static struct words stats_bytes(uint64_t n)
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

/* Adds `format`, in which a %n is a number and a %b bytes, a uint64_t each. */
static HAK_COLD void stats_tell(struct stats_text *text, const char *format,
                                ...)
{
    va_list args;

    va_start(args, format);
    while (*format != '\0') {
        size_t plain = strcspn(format, "%");

        stats_add(text, "%.*s", (int)plain, format);
        format += plain;
        if (*format == '%') {
            uint64_t n = va_arg(args, uint64_t);

            stats_add(text, "%s",
                      format[1] == 'b' ? stats_bytes(n).text
                                       : stats_number(n).text);
            format += 2;
        }
    }
    va_end(args);
}

static HAK_COLD void stats_add_lane(struct stats_text *text, const char *name,
                                    const uint64_t *allocs)
{
    struct hak_lane_counts lane;

    memcpy(&lane, allocs, sizeof(lane));
    stats_add(text, "%-8s %17s %17s %11s %11s %11s\n", name,
              stats_number(lane.allocs).text, stats_number(lane.frees).text,
              stats_bytes(lane.live_bytes).text,
              stats_bytes(lane.peak_bytes).text,
              stats_bytes(lane.held_bytes).text);
}

static HAK_COLD void stats_add_memory(struct stats_text *text,
                                      const hak_stats_t *stats)
{
    stats_tell(text,
               "memory   %b window, %b mapped, %b resident, %b of it due back\n"
               "         %b given back in %n purges\n",
               stats->range_bytes, stats->committed_bytes,
               stats->resident_bytes, stats->due_bytes, stats->purged_bytes,
               stats->purges);
    stats_tell(text, stats->limit_bytes != 0 ? "limit    %b" : "limit    none",
               stats->limit_bytes);
    stats_tell(text, ", %b held; near it %n times, %n purges\n",
               stats->limit_used_bytes, stats->pressure_events,
               stats->limit_purges);
    stats_tell(text,
               "heaps    %n in use, %n parked, %n slabs, %b in bins\n"
               "work     %n refills, %n flushes, %n remote frees\n",
               stats->heaps, stats->heaps_parked, stats->slabs,
               stats->kept_bytes, stats->refills, stats->flushes,
               stats->remote_frees);
}

static HAK_COLD void stats_add_system(struct stats_text *text,
                                      const hak_stats_t *stats)
{
    stats_tell(text,
               "system   %n blocks live, %b; handed on, by reason:\n"
               "         init %n, recursion %n, forced %n, large %n, "
               "aligned %n, memory %n, exited %n\n",
               stats->system_live, stats->system_live_bytes,
               stats->fallback_init, stats->fallback_recursion,
               stats->fallback_forced, stats->fallback_large,
               stats->fallback_aligned, stats->fallback_memory,
               stats->fallback_exited);
    stats_tell(text, "others   %n foreign frees, %n refused by a limit\n",
               stats->foreign_frees, stats->limit_refusals);
    if (stats->guards + stats->guards_missed != 0) {
        stats_tell(text, "guards   %n blocks guarded, %n missed: no room\n",
                   stats->guards, stats->guards_missed);
    }
}

/* Weak: a static program need not have it. */
extern __typeof__(dladdr) dladdr __attribute__((weak));

/*
 * The file that contains this core. A process may have several cores: an
 * adapter's beside that of a preloaded libhakmem.so.
 */
static const char *stats_home(void)
{
    Dl_info info;
    const char *slash;

    if (dladdr == NULL || dladdr(stats_statistics, &info) == 0 ||
        info.dli_fname == NULL) {
        return program_invocation_short_name;
    }
    slash = strrchr(info.dli_fname, '/');
    return slash != NULL ? slash + 1 : info.dli_fname;
}

size_t hak_stats_table(char *buf, size_t len)
{
    struct stats_text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    haki_inside_stats(&stats);
    stats_add(&text, "HAKMEM %s: %s, process %d, in %s\n", HAK_VERSION_STRING,
              program_invocation_short_name, (int)getpid(), stats_home());
    stats_add(&text, "%-8s %17s %17s %11s %11s %11s\n", "lane", "calls",
              "frees", "live", "peak", "held");
    stats_add_lane(&text, "tiny", &stats.tiny_allocs);
    stats_add_lane(&text, "pool", &stats.pool_allocs);
    stats_add_lane(&text, "ace", &stats.ace_allocs);
    stats_add_lane(&text, "huge", &stats.huge_allocs);
    stats_add_memory(&text, &stats);
    stats_add_system(&text, &stats);
    return text.used;
}

void haki_stats_report(int fd)
{
    static char text[16384]; /* the longest form takes half of it */
    static _Atomic(pid_t) printed;
    size_t form = haki_option(HAK_OPT_show_stats);
    size_t room = sizeof(text) - 1;
    size_t length;

    haki_profiling_at_end();
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
__attribute__((destructor)) static void stats_show_stats(void)
{
    haki_stats_report(haki_msg_fd());
    haki_share_close();
}

/*
 * main.c - hakmem-replay, which `hakmem replay` calls: what a trace holds, a plan
 * of it, a run of the plan on the allocator that is preloaded.
 *
 * Status 0; 1: the system refused something; 2: a trace or the command line is
 * wrong; 3: the allocator is not the one that was asked for.
 */
#include "replay.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] = "usage: hakmem-replay info [--partial] TRACE\n"
                            "       hakmem-replay plan [--partial] TRACE PLAN\n"
                            "       hakmem-replay run [--samples N] [--pace] "
                            "[--served-by LIBRARY] PLAN\n"
                            "`hakmem replay` does all of this; man hakmem.\n";

static int complain(const char *what, const char *why, int status)
{
    fprintf(stderr, "hakmem-replay: %s%s%s\n", what, *why ? ": " : "", why);
    return status;
}

/* ---- info ----------------------------------------------------------------- */

/* The command line as a JSON text; what is no plain ASCII as it stands or ?. */
static void print_text(const struct trace *trace)
{
    for (size_t i = 0; i + 1 < trace->text_bytes; i++) {
        const unsigned char byte = (unsigned char)trace->text[i];

        if (byte == '"' || byte == '\\') {
            printf("\\%c", byte);
        } else {
            putchar(byte == 0 ? ' ' : byte < ' ' || byte > '~' ? '?' : byte);
        }
    }
}

static int info(const char *name, bool partial)
{
    struct trace trace;
    struct trace_totals totals;

    if (!trace_open(&trace, name) ||
        !trace_each(&trace, partial, NULL, NULL, &totals)) {
        return complain(trace.error, "", 2);
    }
    printf("{\"command\": \"");
    print_text(&trace);
    printf("\", \"pid\": %u, \"file_bytes\": %zu, \"whole\": %s, "
           "\"threads\": %u",
           trace.pid, trace.bytes, totals.whole ? "true" : "false",
           totals.threads);
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"operations", totals.operations}, {"allocs", totals.allocs},
        {"resizes", totals.resizes},       {"frees", totals.frees},
        {"bytes", totals.bytes},           {"live_blocks", totals.live_blocks},
        {"live_bytes", totals.live_bytes}, {"peak_blocks", totals.peak_blocks},
        {"peak_bytes", totals.peak_bytes}, {"failed", totals.failed},
        {"foreign_frees", totals.foreign}, {"lost_frees", totals.lost},
        {"missed_calls", totals.missed},   {"time_us", totals.time}};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        printf(", \"%s\": %llu", rows[i].name,
               (unsigned long long)rows[i].value);
    }
    puts("}");
    trace_close(&trace);
    return 0;
}

static int make_plan(const char *name, bool partial, const char *file)
{
    struct trace trace;
    bool system = false;

    if (!trace_open(&trace, name) ||
        !plan_make(&trace, partial, file, &system)) {
        return complain(trace.error, "", system ? 1 : 2);
    }
    trace_close(&trace);
    return 0;
}

/* ---- run ------------------------------------------------------------------ */

/* A library that could not be preloaded is left out with a word on stderr only. */
static bool served_by(const char *library)
{
    Dl_info found;
    char real[2][4096];
    void *function;

    function = dlsym(RTLD_DEFAULT, "malloc");
    return dladdr(function, &found) && realpath(found.dli_fname, real[0]) &&
           realpath(library, real[1]) && strcmp(real[0], real[1]) == 0;
}

/* Written as it is: the allocator may count what stdio takes. */
static void print_result(const struct plan *plan,
                         const struct replay_result *result)
{
    const struct plan_round *rounds =
        (const struct plan_round *)((const char *)plan + plan->at_rounds);

    dprintf(STDOUT_FILENO,
            "{\"time_us\": %llu, \"cpu_us\": %llu, \"faults\": %llu,"
            " \"peak_kb\": %llu, \"end_kb\": %llu, \"failed\": %llu,"
            " \"operations\": %llu, \"rounds\": %llu, \"samples\": [",
            (unsigned long long)result->time, (unsigned long long)result->cpu,
            (unsigned long long)result->faults,
            (unsigned long long)result->peak_kb,
            (unsigned long long)result->end_kb,
            (unsigned long long)result->failed,
            (unsigned long long)plan->totals.operations,
            (unsigned long long)plan->rounds);
    for (unsigned i = 0; i < result->sample_count; i++) {
        const struct replay_sample *sample = &result->samples[i];

        dprintf(STDOUT_FILENO, "%s[%llu, %llu, %llu, %llu]", i ? ", " : "",
                (unsigned long long)sample->time,
                (unsigned long long)sample->step,
                (unsigned long long)sample->kb,
                (unsigned long long)rounds[sample->step].live);
    }
    dprintf(STDOUT_FILENO, "]}\n");
}

static int run(const char *file, const struct replay_options *options,
               const char *library)
{
    static struct replay_result result;
    const char *why = NULL;

    if (library && !served_by(library)) {
        return complain(library, "could not be preloaded", 3);
    }
    const struct plan *plan = replay_map(file, &why);

    if (plan == NULL) {
        return complain(file, why, 2);
    }
    why = replay(plan, options, &result);
    if (why) {
        return complain(file, why, 1);
    }
    print_result(plan, &result);
    return 0;
}

int main(int argc, char **argv)
{
    struct replay_options options = {0};
    const char *library = NULL, *words[2] = {0};
    bool partial = false, only_words = false;
    int count = 0;

    for (int i = 2; i < argc; i++) {
        if (only_words) {
            words[count < 2 ? count++ : 1] = argv[i];
        } else if (strcmp(argv[i], "--partial") == 0) {
            partial = true;
        } else if (strcmp(argv[i], "--pace") == 0) {
            options.pace = true;
        } else if (strcmp(argv[i], "--samples") == 0 && i + 1 < argc) {
            options.samples = (unsigned)strtoul(argv[++i], NULL, 10);
            options.samples =
                options.samples > 1000000 ? 1000000 : options.samples;
        } else if (strcmp(argv[i], "--served-by") == 0 && i + 1 < argc) {
            library = argv[++i];
        } else if (strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (argv[i][0] != '-' && count < 2) {
            words[count++] = argv[i];
        } else {
            count = 3;
        }
    }
    if (argc > 1 && count == 1 && strcmp(argv[1], "info") == 0) {
        return info(words[0], partial);
    }
    if (argc > 1 && count == 2 && strcmp(argv[1], "plan") == 0) {
        return make_plan(words[0], partial, words[1]);
    }
    if (argc > 1 && count == 1 && strcmp(argv[1], "run") == 0) {
        return run(words[0], &options, library);
    }
    fputs(usage, stderr);
    return 2;
}

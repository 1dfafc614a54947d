/*
 * replay.c - runs the fuzzer's corpus (ops.c) as a test, without libFuzzer.
 *
 * Obeys: HAKMEM_TEST_CORPUS (a directory of inputs, or one input; unset:
 * tests/fuzz/corpus) and HAKMEM_TEST_SCALE (runs every n-th input only).
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "ops.h"

/* The inputs are dealt to so many tests, which Criterion runs side by side. */
#define PARTS 8
#define INPUT_MOST 65536

static const char *corpus(void)
{
    const char *path = getenv("HAKMEM_TEST_CORPUS");

    return path != NULL && path[0] != '\0' ? path : "tests/fuzz/corpus";
}

static size_t scale(void)
{
    const char *text = getenv("HAKMEM_TEST_SCALE");

    return text != NULL && atoi(text) > 0 ? (size_t)atoi(text) : 1;
}

/* What is being run, and who handled the signals before us. */
static const char *running = "nothing";
static struct sigaction handlers[NSIG];

/* A crash: names the input, then goes on as if we had not been there. */
static void crashed(int sig)
{
    static const char text[] = "replay: crashed while it ran ";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ||
        write(STDERR_FILENO, running, strlen(running)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        running = "nothing";
    }
    sigaction(sig, &handlers[sig], NULL);
    if (sig == SIGABRT) {
        raise(sig);
    }
}

static void run(const uint8_t *data, size_t size, const char *name)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct sigaction action = {.sa_handler = crashed};

    running = name;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &action, &handlers[signals[i]]);
    }
    LLVMFuzzerTestOneInput(data, size);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &handlers[signals[i]], NULL);
    }
}

static void replay(const char *path)
{
    static uint8_t data[INPUT_MOST];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size;

    cr_assert(fd >= 0, "%s can't be opened", path);
    size = read(fd, data, sizeof(data));
    cr_assert(size >= 0, "%s can't be read", path);
    close(fd);
    run(data, (size_t)size, path);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/*
 * In half of the tests free memory goes back at once, not after a second.
 * Must stand before the first call to the library.
 */
static void set_delay(int part)
{
    if (part % 2 == 1) {
        setenv("HAKMEM_PURGE_DELAY", "0", 1);
    }
}

/* Runs every input of this part; returns how many there are in all. */
static int replay_part(int part)
{
    struct dirent **entries;
    int count = scandir(corpus(), &entries, visible, alphasort);
    char path[4096];

    cr_assert(count >= 0, "%s can't be read", corpus());
    for (int i = part; part >= 0 && i < count; i += PARTS * (int)scale()) {
        snprintf(path, sizeof(path), "%s/%s", corpus(), entries[i]->d_name);
        replay(path);
    }
    for (int i = 0; i < count; i++) {
        free(entries[i]);
    }
    free(entries);
    return count;
}

static int parts[PARTS];

ParameterizedTestParameters(replay, corpus)
{
    for (int i = 0; i < PARTS; i++) {
        parts[i] = i;
    }
    return cr_make_param_array(int, parts, PARTS);
}

ParameterizedTest(int *part, replay, corpus)
{
    struct stat stat_of;

    set_delay(*part);
    if (stat(corpus(), &stat_of) == 0 && S_ISREG(stat_of.st_mode)) {
        if (*part < 2) { /* with both delays */
            replay(corpus());
        }
        return;
    }
    replay_part(*part);
}

/* A corpus that is missing or empty would pass the tests above. */
Test(replay, there_is_a_corpus)
{
    struct stat stat_of;

    cr_assert(stat(corpus(), &stat_of) == 0, "no corpus: %s", corpus());
    cr_assert(S_ISREG(stat_of.st_mode) || replay_part(-1) >= 50,
              "%s has too few inputs", corpus());
}

/* Any bytes are operations, none as well. */
Test(replay, no_input_and_noise)
{
    uint8_t data[512] = {0};
    uint32_t x = 1;

    run(data, 0, "an empty input");
    for (int round = 0; round < 64 / (int)scale() + 1; round++) {
        for (size_t i = 0; i < sizeof(data); i++) {
            x = x * 1664525u + 1013904223u;
            data[i] = (uint8_t)(x >> 24);
        }
        run(data, sizeof(data), "noise");
    }
}

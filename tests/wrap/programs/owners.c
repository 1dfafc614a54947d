/*
 * owners.c - a program that gives its blocks away: to a library that resizes,
 * keeps and frees them (libowner.c), and to functions of the C library that
 * resize what they are given. owners [hak]: blocks of hak_malloc too, where it is
 * the same core's. Ends with "well".
 */
#include <argz.h>
#include <sys/wait.h>

#include "program.h"

void owner_take(void *p);
void *owner_resize(void *p, size_t size);
void *owner_make(size_t size);
void owner_end(void);

void *hak_malloc(size_t size) __attribute__((weak));

/* ---- to the library ------------------------------------------------------------ */

static size_t next_size(size_t size)
{
    return size < 3000 ? size + size / 2 + 1 : size * 2 + 77;
}

static void *aligned(size_t size)
{
    void *p;

    NEED(posix_memalign(&p, 64, size) == 0);
    return p;
}

static void *zeros(size_t size)
{
    return calloc(1, size);
}

static void *duplicate(size_t size)
{
    char *text = malloc(size);
    void *p;

    memset(text, 'x', size);
    text[size - 1] = '\0';
    p = strdup(text);
    free(text);
    return p;
}

static void give(void *(*make)(size_t))
{
    for (size_t size = 1; size < 3000000; size = next_size(size)) {
        void *p = make(hide(size)), *q = make(hide(size)), *mine;

        NEED(p != NULL && q != NULL);
        fill(p, size, 1);
        fill(q, size, 2);
        p = owner_resize(p, 2 * size);
        NEED(p != NULL && filled(p, size, 1));
        q = owner_resize(q, size / 2 + 1);
        NEED(q != NULL && filled_of(q, size / 2, size, 2));
        owner_take(p);
        owner_take(q);
        mine = owner_make(size);
        fill(mine, size, 3);
        mine = realloc(mine, 2 * size);
        NEED(mine != NULL && filled(mine, size, 3));
        free(mine);
    }
}

/* ---- to the C library ----------------------------------------------------------- */

static void lines(void)
{
    FILE *stream = tmpfile();
    size_t room = 3, length = 0;
    char *line = malloc(room), *text = NULL;

    NEED(stream != NULL);
    for (int i = 1; i < 200; i++) {
        fprintf(stream, "%*d\n", i * i, i);
    }
    rewind(stream);
    for (int i = 1; i < 200; i++) {
        NEED(getline(&line, &room, stream) == (i * i < 3 ? 2 : i * i + 1) ||
             i * i < 4);
    }
    fclose(stream);
    owner_take(line);

    stream = open_memstream(&text, &length);
    for (int i = 0; i < 2000; i++) {
        fputs("0123456789", stream);
    }
    fclose(stream);
    NEED(length == 20000 && strlen(text) == length);
    owner_take(owner_resize(text, length + 5));
    NEED(asprintf(&text, "%5000d", 1) == 5000);
    owner_take(text);
}

static void vectors(void)
{
    char *argz = malloc(4);
    size_t length = 4;

    memcpy(argz, "abc", 4);
    for (int i = 0; i < 500; i++) {
        NEED(argz_add(&argz, &length, "another word") == 0);
    }
    NEED(argz_count(argz, length) == 501);
    owner_take(argz);
    owner_take(realpath("/", NULL));
    owner_take(getcwd(NULL, 0));
}

static bool hak;

static void all(void)
{
    give(malloc);
    give(zeros);
    give(aligned);
    give(duplicate);
    if (hak) {
        NEED(hak_malloc != NULL);
        give(hak_malloc);
    }
    lines();
    vectors();
}

static void *thread(void *arg)
{
    all();
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t id;
    pid_t pid;
    int status;

    hak = argc > 1 && strcmp(argv[1], "hak") == 0;
    all();
    NEED(pthread_create(&id, NULL, thread, NULL) == 0);
    NEED(pthread_join(id, NULL) == 0);
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        all();
        exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    owner_end();
    all(); /* what the library now has goes when the process ends */
    puts("well");
    return 0;
}

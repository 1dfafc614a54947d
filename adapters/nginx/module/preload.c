
/*
 * preload.c - hakmem_mode: nginx as a whole on libhakmem.so.
 *
 * A library can be preloaded only when a program starts. So when nginx reads
 * its configuration for the first time, it is executed again, as the same
 * process, with the library in LD_PRELOAD. The mode that nginx has then stays
 * until its next start, whatever later configurations say.
 */


#include <module/module.h>
#include <hakmem.h>

#include <dlfcn.h>
#include <sys/prctl.h>


#ifndef NGX_HAKMEM_LIBRARY
#define NGX_HAKMEM_LIBRARY  "/usr/local/lib/libhakmem.so"
#endif


/* PID of the process that was executed again, so that this happens only once */

#define NGX_HAKMEM_MARK     "HAKMEM_NGINX_PRELOAD"


/* the functions of a preloaded library that we call */

typedef struct {
    int      (*stats)(hak_stats_t *stats);
    size_t   (*trim)(void);
    void     (*seal)(void);
} ngx_hakmem_core_t;


static char *ngx_hakmem_preload(ngx_conf_t *cf, ngx_str_t *path);
static ngx_uint_t ngx_hakmem_preload_find(void);
static void ngx_hakmem_preload_profiler(ngx_hakmem_profiler_t *profiler);
static char *ngx_hakmem_preload_failed(ngx_conf_t *cf, ngx_err_t err,
    ngx_str_t *path, char *what);
static char **ngx_hakmem_preload_environ(ngx_conf_t *cf, ngx_str_t *path);
static void ngx_hakmem_preload_descriptors(ngx_conf_t *cf);
static ngx_int_t ngx_hakmem_preload_program(u_char *path, size_t size);
static ngx_uint_t ngx_hakmem_preload_marked(void);


extern char  **environ;


static char               ngx_hakmem_why[128];   /* "": nothing failed */
static ngx_uint_t         ngx_hakmem_preloaded;  /* the mode is preload */
static ngx_hakmem_core_t  ngx_hakmem_core;       /* ... on this */

static ngx_hakmem_profiler_t  ngx_hakmem_profilers[] = {
    { hak_profile_start, hak_profile_stop, hak_profile_rate, hak_profile_mark,
      hak_profile_write_fd },
    { NULL, NULL, NULL, NULL, NULL }             /* the library's */
};


char *
ngx_hakmem_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t *hcf = conf;

    ngx_str_t  *value, path;

    if (hcf->mode) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 2, "\"module\" or \"preload\", and after "
                         "\"preload\" the path of libhakmem.so")
        != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "module") == 0) {

        if (cf->args->nelts == 3) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"hakmem_mode module\" takes no library, "
                               "remove \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        hcf->mode = NGX_HAKMEM_MODULE;

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "preload") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\" directive, "
                           "it must be \"module\" or \"preload\"",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    hcf->mode = NGX_HAKMEM_PRELOAD;

    /*
     * files opened by other modules' blocks would stay open in the new program
     */

    if (cf->cycle->modules_used) {
        return "is specified too late: it must be before all blocks, "
               "such as \"events\" and \"http\"";
    }

    if (cf->args->nelts == 3) {
        path = value[2];

    } else {
        ngx_str_set(&path, NGX_HAKMEM_LIBRARY);
    }

    if (path.len == 0 || strpbrk((char *) path.data, " :\t\n")) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" can't be preloaded: LD_PRELOAD takes "
                           "a name without blanks and colons", &path);
        return NGX_CONF_ERROR;
    }

    if (ngx_conf_full_name(cf->cycle, &path, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_hakmem_preload(cf, &path);
}


static char *
ngx_hakmem_preload(ngx_conf_t *cf, ngx_str_t *path)
{
    char       **env;
    u_char       program[NGX_MAX_PATH];
    ngx_uint_t   marked;

    if (ngx_process == NGX_PROCESS_SIGNALLER || ngx_hakmem_preloaded) {
        return NGX_CONF_OK;
    }

    if (ngx_is_init_cycle(cf->cycle->old_cycle)) {

        marked = ngx_hakmem_preload_marked();

        ngx_hakmem_preloaded = ngx_hakmem_preload_find();

        if (ngx_hakmem_preloaded) {
            ngx_hakmem_file_watch((void *) ngx_hakmem_core.stats);
            return NGX_CONF_OK;
        }

        if (marked) {
            return ngx_hakmem_preload_failed(cf, 0, path,
                                      "was not loaded or is not libhakmem.so");
        }
    }

    if (access((char *) path->data, R_OK) == -1) {
        return ngx_hakmem_preload_failed(cf, ngx_errno, path,
                                         "can't be read");
    }

    if (!ngx_is_init_cycle(cf->cycle->old_cycle)) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"hakmem_mode preload\" takes effect "
                           "at the next start of nginx");
        return NGX_CONF_OK;
    }

    if (ngx_hakmem_preload_program(program, sizeof(program)) != NGX_OK) {
        return ngx_hakmem_preload_failed(cf, ngx_errno, path,
                                         "needs /proc/self/exe");
    }

    env = ngx_hakmem_preload_environ(cf, path);
    if (env == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_hakmem_preload_descriptors(cf);

    (void) execve((char *) program, ngx_argv, env);

    return ngx_hakmem_preload_failed(cf, ngx_errno, path,
                                     "needs nginx to execute itself");
}


/* libhakmem.so, if that serves malloc() */

static ngx_uint_t
ngx_hakmem_preload_find(void)
{
    void     *stats, *served;
    Dl_info   one, two;

    stats = dlsym(RTLD_DEFAULT, "hak_stats");
    served = dlsym(RTLD_DEFAULT, "malloc");

    if (stats == NULL
        || served == NULL
        || dladdr(stats, &one) == 0
        || dladdr(served, &two) == 0
        || one.dli_fbase != two.dli_fbase)
    {
        return 0;
    }

    ngx_hakmem_core.stats = (int (*)(hak_stats_t *)) stats;
    ngx_hakmem_core.trim = (size_t (*)(void)) dlsym(RTLD_DEFAULT, "hak_trim");
    ngx_hakmem_core.seal = (void (*)(void)) dlsym(RTLD_DEFAULT, "hak_seal");

    ngx_hakmem_preload_profiler(&ngx_hakmem_profilers[1]);

    return 1;
}


static void
ngx_hakmem_preload_profiler(ngx_hakmem_profiler_t *profiler)
{
    profiler->start = (int (*)(size_t)) dlsym(RTLD_DEFAULT,
                                              "hak_profile_start");
    profiler->stop = (void (*)(void)) dlsym(RTLD_DEFAULT, "hak_profile_stop");
    profiler->rate = (size_t (*)(void)) dlsym(RTLD_DEFAULT,
                                              "hak_profile_rate");
    profiler->mark = (void (*)(void)) dlsym(RTLD_DEFAULT, "hak_profile_mark");
    profiler->write_fd = (int (*)(int, int, unsigned))
                                 dlsym(RTLD_DEFAULT, "hak_profile_write_fd");
}


static char *
ngx_hakmem_preload_failed(ngx_conf_t *cf, ngx_err_t err, ngx_str_t *path,
    char *what)
{
    u_char  *p;

    ngx_conf_log_error(NGX_LOG_WARN, cf, err,
                       "\"hakmem_mode preload\" is not in effect: \"%V\" %s",
                       path, what);

    if (ngx_is_init_cycle(cf->cycle->old_cycle)) {
        p = ngx_snprintf((u_char *) ngx_hakmem_why, sizeof(ngx_hakmem_why) - 1,
                         "hakmem_mode preload: %V %s", path, what);
        *p = '\0';
    }

    return NGX_CONF_OK;
}


/* the environment as it is, including sockets in NGINX */

static char **
ngx_hakmem_preload_environ(ngx_conf_t *cf, ngx_str_t *path)
{
    char        **env;
    u_char       *p, *mark, *preload;
    size_t        len;
    ngx_uint_t    i, n;

    preload = NULL;

    for (n = 0; environ[n]; n++) {
        if (ngx_strncmp(environ[n], "LD_PRELOAD=", 11) == 0) {
            preload = (u_char *) environ[n] + 11;
        }
    }

    env = ngx_palloc(cf->temp_pool, (n + 3) * sizeof(char *));
    if (env == NULL) {
        return NULL;
    }

    n = 0;

    for (i = 0; environ[i]; i++) {
        if (ngx_strncmp(environ[i], "LD_PRELOAD=", 11) != 0
            && ngx_strncmp(environ[i], NGX_HAKMEM_MARK "=",
                           sizeof(NGX_HAKMEM_MARK))
               != 0)
        {
            env[n++] = environ[i];
        }
    }

    mark = ngx_palloc(cf->temp_pool, sizeof(NGX_HAKMEM_MARK "=")
                                     + NGX_INT64_LEN);
    if (mark == NULL) {
        return NULL;
    }

    p = ngx_sprintf(mark, NGX_HAKMEM_MARK "=%P", ngx_pid);
    *p = '\0';

    env[n++] = (char *) mark;

    len = sizeof("LD_PRELOAD=:") + path->len;

    if (preload) {
        len += ngx_strlen(preload);
    }

    p = ngx_palloc(cf->temp_pool, len);
    if (p == NULL) {
        return NULL;
    }

    env[n++] = (char *) p;
    env[n] = NULL;

    p = ngx_sprintf(p, "LD_PRELOAD=%V", path);

    if (preload && *preload) {
        p = ngx_sprintf(p, ":%s", preload);
    }

    *p = '\0';

    return env;
}


/*
 * nginx has opened its log and the chain of included configuration files, up to
 * the one being read, without close-on-exec. Each took the lowest free number,
 * so they lie between the main file's and this one's. Everything else, above
 * all listening sockets, came from whoever started nginx and stays open; so
 * does N of "nginx -c /dev/fd/N".
 */

static void
ngx_hakmem_preload_descriptors(ngx_conf_t *cf)
{
    u_char           *p;
    ngx_fd_t          fd, last, given;
    ngx_int_t         flags;
    ngx_uint_t        found;
    ngx_file_info_t   conf, fi;

    last = cf->log->file->fd;

    if (last > STDERR_FILENO) {
        (void) fcntl(last, F_SETFD, FD_CLOEXEC);
    }

    if (ngx_file_info(cf->cycle->conf_file.data, &conf) == NGX_FILE_ERROR) {
        return;
    }

    given = NGX_INVALID_FILE;
    p = (u_char *) ngx_strstr(cf->cycle->conf_file.data, "/fd/");

    if (p) {
        p += sizeof("/fd/") - 1;
        given = ngx_atoi(p, ngx_strlen(p));
    }

    /* NGX_INVALID_FILE, which is no file at all, for "nginx -g" */

    last = cf->conf_file->file.fd;
    found = 0;

    for (fd = STDERR_FILENO + 1; fd <= last; fd++) {

        flags = fcntl(fd, F_GETFL);

        if (fd == given
            || flags == -1
            || (flags & O_ACCMODE) != O_RDONLY
            || ngx_fd_info(fd, &fi) == NGX_FILE_ERROR
            || !ngx_is_file(&fi))
        {
            continue;
        }

        if (fi.st_dev == conf.st_dev && fi.st_ino == conf.st_ino) {
            found = 1;
        }

        if (found) {
            (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
        }
    }
}


/*
 * The running program by its name: executed as /proc/self/exe the process would
 * be called "exe", so that is only used when the program's file has been
 * replaced.
 */

static ngx_int_t
ngx_hakmem_preload_program(u_char *path, size_t size)
{
    ssize_t          n;
    ngx_file_info_t  running, found;

    n = readlink("/proc/self/exe", (char *) path, size - 1);

    if (n == -1 || ngx_file_info("/proc/self/exe", &running)
                   == NGX_FILE_ERROR)
    {
        return NGX_ERROR;
    }

    path[n] = '\0';

    if (ngx_file_info(path, &found) == NGX_FILE_ERROR
        || found.st_dev != running.st_dev
        || found.st_ino != running.st_ino)
    {
        ngx_cpystrn(path, (u_char *) "/proc/self/exe", size);
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_hakmem_preload_marked(void)
{
    char  *mark, *name;

    mark = getenv(NGX_HAKMEM_MARK);

    if (mark == NULL
        || ngx_atoi((u_char *) mark, ngx_strlen(mark)) != ngx_pid)
    {
        return 0;
    }

    name = strrchr(ngx_argv[0], '/');

    (void) prctl(PR_SET_NAME, name ? name + 1 : ngx_argv[0], 0, 0, 0);

    return 1;
}


void
ngx_hakmem_mode_init(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    if (hcf->mode == 0) {
        hcf->mode = NGX_HAKMEM_MODULE;
    }

    if (ngx_hakmem_preloaded && hcf->mode == NGX_HAKMEM_MODULE) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "\"hakmem_mode module\" takes effect "
                      "at the next start of nginx");
    }

    if (hcf->mode == NGX_HAKMEM_PRELOAD && !hcf->enable) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "\"hakmem off\" does not switch "
                      "\"hakmem_mode preload\" off");
    }

    if (ngx_hakmem_preloaded || !hcf->enable) {
        ngx_hakmem_master_undo();
    }
}


/* NGX_OK: preloaded; the module has nothing to patch */

ngx_int_t
ngx_hakmem_mode_init_process(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    u_char   *p;
    Dl_info   info;

    if (ngx_hakmem_preloaded) {
        ngx_hakmem_worker.state = NGX_HAKMEM_PRELOAD;

        p = ngx_snprintf((u_char *) ngx_hakmem_worker.text,
                         NGX_HAKMEM_TEXT_LEN - 1, "all of nginx, by \"%s\"",
                         dladdr((void *) ngx_hakmem_core.stats, &info)
                         ? info.dli_fname : "libhakmem.so");
        *p = '\0';

        ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                      "hakmem: preloaded, serving %s", ngx_hakmem_worker.text);

        return NGX_OK;
    }

    if (hcf->mode == NGX_HAKMEM_PRELOAD && ngx_hakmem_why[0]) {
        ngx_hakmem_worker.state = NGX_HAKMEM_SYSTEM;

        ngx_hakmem_not_served(cycle, hcf, ngx_hakmem_why,
                           "name the libhakmem.so that \"make install\" put "
                           "there");

        return NGX_OK;
    }

    return NGX_DECLINED;
}


ngx_uint_t
ngx_hakmem_is_preloaded(void)
{
    return ngx_hakmem_preloaded;
}


ngx_uint_t
ngx_hakmem_has_core(void)
{
    return ngx_hakmem_preloaded
           || ngx_hakmem_worker.state == NGX_HAKMEM_MODULE;
}


int
ngx_hakmem_stats(hak_stats_t *stats)
{
    return ngx_hakmem_preloaded ? ngx_hakmem_core.stats(stats)
                                : hak_stats(stats);
}


size_t
ngx_hakmem_core_trim(void)
{
    if (!ngx_hakmem_preloaded) {
        return hak_trim();
    }

    return ngx_hakmem_core.trim ? ngx_hakmem_core.trim() : 0;
}


void
ngx_hakmem_core_seal(void)
{
    if (ngx_hakmem_core.seal) {
        ngx_hakmem_core.seal();
    }
}


ngx_hakmem_profiler_t *
ngx_hakmem_profiler(void)
{
    ngx_hakmem_profiler_t  *profiler;

    profiler = &ngx_hakmem_profilers[ngx_hakmem_preloaded ? 1 : 0];

    return profiler->write_fd ? profiler : NULL;
}

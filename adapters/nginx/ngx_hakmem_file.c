
/*
 * ngx_hakmem_file.c - whether the module's file is still the one that runs.
 *
 * The module is never unloaded, and a path that is loaded already is not opened
 * again: after a new file was put in its place a reload goes on with the old
 * code. That is told by the file's contents, so that neither a new date nor the
 * same file installed once more is taken for an upgrade; they are read again
 * only when something about the file has changed.
 */


#include <ngx_hakmem.h>

#include <dlfcn.h>


#define NGX_HAKMEM_FILE_CHUNK  4096


typedef struct {
    dev_t                dev;
    ino_t                ino;
    off_t                size;
    struct timespec      mtime;
    struct timespec      ctime;
    uint32_t             crc32;
} ngx_hakmem_file_t;


static ngx_int_t ngx_hakmem_file_info(ngx_hakmem_file_t *file);
static ngx_int_t ngx_hakmem_file_read(ngx_hakmem_file_t *file);
static ngx_uint_t ngx_hakmem_file_is(ngx_hakmem_file_t *one,
    ngx_hakmem_file_t *two);


static char               ngx_hakmem_file_path[NGX_MAX_PATH];   /* "": not known */
static ngx_hakmem_file_t  ngx_hakmem_file_loaded;
static ngx_hakmem_file_t  ngx_hakmem_file_seen;        /* by the last check */


void
ngx_hakmem_file_init(void)
{
    Dl_info  info;

    if (ngx_hakmem_file_path[0] != '\0'
        || dladdr(&ngx_hakmem_module, &info) == 0
        || ngx_strlen(info.dli_fname) >= sizeof(ngx_hakmem_file_path))
    {
        return;
    }

    (void) ngx_cpystrn((u_char *) ngx_hakmem_file_path, (u_char *) info.dli_fname,
                       sizeof(ngx_hakmem_file_path));

    if (ngx_hakmem_file_info(&ngx_hakmem_file_loaded) != NGX_OK
        || ngx_hakmem_file_read(&ngx_hakmem_file_loaded) != NGX_OK)
    {
        ngx_hakmem_file_path[0] = '\0';
        return;
    }

    ngx_hakmem_file_seen = ngx_hakmem_file_loaded;
}


ngx_hakmem_file_e
ngx_hakmem_file_check(void)
{
    ngx_hakmem_file_t  now;

    if (ngx_hakmem_file_path[0] == '\0') {
        return NGX_HAKMEM_FILE_SAME;
    }

    if (ngx_hakmem_file_info(&now) != NGX_OK) {
        return (ngx_errno == NGX_ENOENT) ? NGX_HAKMEM_FILE_GONE
                                         : NGX_HAKMEM_FILE_SAME;
    }

    if (!ngx_hakmem_file_is(&now, &ngx_hakmem_file_seen)) {

        if (ngx_hakmem_file_read(&now) != NGX_OK) {
            return NGX_HAKMEM_FILE_SAME;
        }

        ngx_hakmem_file_seen = now;
    }

    return (ngx_hakmem_file_seen.size == ngx_hakmem_file_loaded.size
            && ngx_hakmem_file_seen.crc32 == ngx_hakmem_file_loaded.crc32)
           ? NGX_HAKMEM_FILE_SAME : NGX_HAKMEM_FILE_REPLACED;
}


void
ngx_hakmem_file_report(ngx_cycle_t *cycle)
{
    ngx_hakmem_file_e  file;

    file = ngx_hakmem_file_check();

    if (file == NGX_HAKMEM_FILE_SAME) {
        return;
    }

    /* at the level that nginx's log has if it is not told otherwise */

    ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                  "hakmem: \"%s\" %s since nginx started, a reload goes on "
                  "with the code of before (%s); to load what is there send "
                  "USR2 to the master, then QUIT to the old one",
                  ngx_hakmem_file_path,
                  file == NGX_HAKMEM_FILE_GONE ? "is gone" : "was replaced",
                  hak_version());
}


static ngx_int_t
ngx_hakmem_file_info(ngx_hakmem_file_t *file)
{
    ngx_file_info_t  fi;

    if (ngx_file_info(ngx_hakmem_file_path, &fi) == NGX_FILE_ERROR) {
        return NGX_ERROR;
    }

    file->dev = fi.st_dev;
    file->ino = fi.st_ino;
    file->size = fi.st_size;
    file->mtime = fi.st_mtim;
    file->ctime = fi.st_ctim;

    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_file_read(ngx_hakmem_file_t *file)
{
    u_char    buf[NGX_HAKMEM_FILE_CHUNK];
    ssize_t   n;
    ngx_fd_t  fd;

    fd = open(ngx_hakmem_file_path, O_RDONLY|O_CLOEXEC);
    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    ngx_crc32_init(file->crc32);

    while ((n = ngx_read_fd(fd, buf, sizeof(buf))) > 0) {
        ngx_crc32_update(&file->crc32, buf, n);
    }

    ngx_crc32_final(file->crc32);

    (void) ngx_close_file(fd);

    return (n == 0) ? NGX_OK : NGX_ERROR;
}


static ngx_uint_t
ngx_hakmem_file_is(ngx_hakmem_file_t *one, ngx_hakmem_file_t *two)
{
    return one->dev == two->dev
           && one->ino == two->ino
           && one->size == two->size
           && one->mtime.tv_sec == two->mtime.tv_sec
           && one->mtime.tv_nsec == two->mtime.tv_nsec
           && one->ctime.tv_sec == two->ctime.tv_sec
           && one->ctime.tv_nsec == two->ctime.tv_nsec;
}

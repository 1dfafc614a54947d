
/*
 * scene.h - scenes, between where they are known (hooks.c) and told (scene.c).
 */


#ifndef _NGX_HAKMEM_SCENE_H_INCLUDED_
#define _NGX_HAKMEM_SCENE_H_INCLUDED_


#include <profile/profile.h>
#include <profile/frames.h>
#include <ngx_http.h>


/* scenes in scenes that are told */

#define NGX_HAKMEM_SCENES  16


typedef struct {
    ngx_http_request_t    *r;            /* alive, or NULL */
    const char            *phase;        /* NULL: an event's */
    ngx_connection_t      *c;            /* the event's */
} ngx_hakmem_scene_t;


extern ngx_hakmem_scene_t  ngx_hakmem_scenes[];
extern ngx_uint_t          ngx_hakmem_depth;     /* may be more than that */


void ngx_hakmem_scene_begin(ngx_uint_t requests);

/* the request, once it is kept as one that is seen; NULL: there is no memory */

ngx_http_request_t *ngx_hakmem_scene_request(ngx_http_request_t *r);

/*
 * A scene begins: a request in a phase, or an event of a connection, NULL if it
 * is not known. Returns the depth before, to leave the scene with. A request
 * that was in this place before and is still there is alive: so for all but its
 * first phase this is a few instructions.
 */

static ngx_inline ngx_uint_t
ngx_hakmem_scene_enter(ngx_http_request_t *r, const char *phase,
    ngx_connection_t *c)
{
    ngx_uint_t           depth;
    ngx_hakmem_scene_t  *scene;

    depth = ngx_hakmem_depth;

    if (depth < NGX_HAKMEM_SCENES) {
        scene = &ngx_hakmem_scenes[depth];

        if (scene->r != r) {
            scene->r = r ? ngx_hakmem_scene_request(r) : NULL;
        }

        scene->phase = phase;
        scene->c = c;
    }

    ngx_hakmem_depth = depth + 1;

    return depth;
}


static ngx_inline void
ngx_hakmem_scene_leave(ngx_uint_t depth)
{
    ngx_hakmem_depth = depth;
}


/* whether it is one of that request, or of another part of the same */

ngx_uint_t ngx_hakmem_scene_covers(ngx_http_request_t *r);

/* hak_ngx_tell_fn */

void ngx_hakmem_scene_tell(struct hak_ngx_scene *scene);


#endif /* _NGX_HAKMEM_SCENE_H_INCLUDED_ */

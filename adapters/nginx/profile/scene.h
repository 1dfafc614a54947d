
/*
 * scene.h - scenes, between where they are known (hooks.c) and told (scene.c).
 */


#ifndef _NGX_HAKMEM_SCENE_H_INCLUDED_
#define _NGX_HAKMEM_SCENE_H_INCLUDED_


#include <profile/profile.h>
#include <profile/frames.h>
#include <ngx_http.h>


void ngx_hakmem_scene_begin(ngx_uint_t requests);

/*
 * A scene begins: a request in a phase, or an event of a connection, NULL if it
 * is not known. Returns the depth before, to leave the scene with.
 */

ngx_uint_t ngx_hakmem_scene_enter(ngx_http_request_t *r, const char *phase,
    ngx_connection_t *c);
void ngx_hakmem_scene_leave(ngx_uint_t depth);

/* whether it is one of that request, or of another part of the same */

ngx_uint_t ngx_hakmem_scene_covers(ngx_http_request_t *r);

/* hak_ngx_tell_fn */

void ngx_hakmem_scene_tell(struct hak_ngx_scene *scene);


#endif /* _NGX_HAKMEM_SCENE_H_INCLUDED_ */

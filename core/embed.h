/*
 * embed.h - the core for adapters: all that a runtime's adapter includes of it.
 */
#ifndef HAK_EMBED_H
#define HAK_EMBED_H

#include <hakmem.h>

#include "api/inside.h"
#include "api/stats.h"
#include "base/msg.h"
#include "base/stub.h"
#include "front/behind.h"
#include "front/check.h"
#include "front/hard_lane.h"
#include "front/hot.h"
#include "front/lane.h"
#include "front/large.h"
#include "heap/thread.h"
#include "os/lock.h"
#include "range/purge.h"
#include "range/slots.h"
#include "settings/options.h"
#include "upkeep/background.h"
#include "upkeep/look.h"
#include "upkeep/relief.h"

#endif /* HAK_EMBED_H */

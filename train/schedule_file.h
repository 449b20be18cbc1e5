/* train/schedule_file.h -- a schedule from a CSV file. */
#ifndef TV_TRAIN_SCHEDULE_FILE_H
#define TV_TRAIN_SCHEDULE_FILE_H
#include "pipeline/schedule.h"

TV_BEGIN_C
/* Does --schedule name a file? It has a slash, or ends in .csv. */
int tv_schedule_is_file(const char *schedule);
/* Errors: as tv_file_map and tv_schedule_parse_csv. */
TV_MUST_CHECK tv_status_t tv_schedule_read_file(const char *path, struct tv_schedule *schedule_out);
TV_END_C
#endif

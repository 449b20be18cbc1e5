/* train/schedule_file.c -- maps the file for the reader of its text. */
#include "train/schedule_file.h"
#include "pipeline/schedule_csv.h"
#include "train/files.h"
#include <string.h>

int tv_schedule_is_file(const char *schedule)
{
    static const char ending[] = ".csv";
    const size_t length = strlen(schedule), at = sizeof(ending) - 1;
    return strchr(schedule, '/') != NULL ||
           (length > at && strcmp(schedule + length - at, ending) == 0);
}

tv_status_t tv_schedule_read_file(const char *path, struct tv_schedule *schedule_out)
{
    struct tv_file_map map;
    TV_TRY(tv_file_map(path, &map));
    const tv_status_t status =
        tv_schedule_parse_csv((const char *)map.data, (size_t)map.bytes, path, schedule_out);
    tv_file_unmap(&map);
    return status;
}

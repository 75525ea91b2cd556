/* How the programs reach the service over its Unix socket; included by each of them, decides nothing.

   Frames both ways: four bytes of length, high byte first, then fields that each end with a NUL. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { LARGEST = 65536 };

/* Sends or receives all of `data`; 0, or -1 when the connection ends, breaks or times out before that. */
static inline int transfer(int service, char *data, size_t length, int sending) {
    while (length > 0) {
        ssize_t moved = sending ? write(service, data, length) : read(service, data, length);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return -1;
        data += moved;
        length -= (size_t)moved;
    }
    return 0;
}

/* A connection on which each read and write waits for at most `seconds`; -1 when the service is not there. */
static inline int connect_to(const char *path, int seconds) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = seconds};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    int service = socket(AF_UNIX, SOCK_STREAM, 0);
    if (service < 0)
        return -1;
    fcntl(service, F_SETFD, FD_CLOEXEC);
    if (setsockopt(service, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(service, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
        connect(service, (struct sockaddr *)&address, sizeof address) != 0) {
        close(service);
        return -1;
    }
    return service;
}

/* Puts a field of at most `most` characters into a frame at `at`; where the next one begins. */
static inline size_t add_field(char *frame, size_t at, const char *value, size_t most) {
    size_t length = strnlen(value, most);
    memcpy(frame + at, value, length);
    frame[at + length] = 0;
    return at + length + 1;
}

/* Sends a frame whose fields stand from its fifth byte on and end before `end`. */
static inline int send_frame(int service, char *frame, size_t end) {
    for (int place = 0; place < 4; place++)
        frame[place] = (char)((end - 4) >> (24 - 8 * place));
    return transfer(service, frame, end, 1);
}

/* Receives the fields of a frame into `text`, which has room for LARGEST; their length, 0 when none came whole. */
static inline size_t receive_frame(int service, char *text) {
    unsigned char head[4];
    if (transfer(service, (char *)head, sizeof head, 0) != 0)
        return 0;
    size_t length = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    if (length == 0 || length > LARGEST || transfer(service, text, length, 0) != 0 || text[length - 1] != 0)
        return 0;
    return length;
}

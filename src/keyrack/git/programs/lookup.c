/* Answers sshd's AuthorizedKeysCommand: asks the service for the line of a fingerprint; decides nothing.

   lookup SOCKET FINGERPRINT
   Prints the key line and ends with 0, prints nothing and ends with 0 when the key is unknown, and ends with 1,
   so that sshd drops whatever was printed, when the service does not answer.
   Frames both ways: four bytes of length, high byte first, then fields that each end with a NUL. */

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 10, LARGEST = 65536 };

static int transfer(int socket_fd, unsigned char *data, size_t length, int sending) {
    while (length > 0) {
        ssize_t moved = sending ? write(socket_fd, data, length) : read(socket_fd, data, length);
        if (moved <= 0)
            return -1;
        data += moved;
        length -= (size_t)moved;
    }
    return 0;
}

int main(int count, char **arguments) {
    static unsigned char frame[LARGEST];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    if (count != 3 || strlen(arguments[1]) >= sizeof address.sun_path || strlen(arguments[2]) > 128)
        return 1;
    strcpy(address.sun_path, arguments[1]);

    int service = socket(AF_UNIX, SOCK_STREAM, 0);
    if (service < 0 || setsockopt(service, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
        setsockopt(service, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
        connect(service, (struct sockaddr *)&address, sizeof address) != 0)
        return 1;

    size_t asked = strlen(arguments[2]) + 1;
    memcpy(frame + 4, "line", 5);
    memcpy(frame + 9, arguments[2], asked);
    frame[0] = frame[1] = frame[2] = 0;
    frame[3] = (unsigned char)(5 + asked);
    if (transfer(service, frame, 9 + asked, 1) != 0 || transfer(service, frame, 4, 0) != 0)
        return 1;
    size_t length = (size_t)frame[0] << 24 | (size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3];
    if (length == 0 || length > sizeof frame || transfer(service, frame, length, 0) != 0 || frame[length - 1] != 0)
        return 1;
    const char *kind = (const char *)frame;
    if (strcmp(kind, "none") == 0)
        return 0;
    if (strcmp(kind, "line") != 0 || length < 6)
        return 1;
    const char *line = kind + 5;
    /* The last gate: whatever the answer holds, it is one line. */
    if (strpbrk(line, "\r\n") != NULL || puts(line) == EOF || fflush(stdout) != 0)
        return 1;
    return 0;
}

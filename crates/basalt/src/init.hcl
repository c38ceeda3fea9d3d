# A stack: one image, and one service that runs two instances of it.
#
#   basalt plan .     what would change
#   basalt up .       make it so, and follow
#   basalt status     what runs
#   basalt down       end it all

stack = "hello"

variable "greeting" { default = "hello" }

# An image is baked from files of this machine; the same files always give the same image.
# Ready images are named instead: image = "oci-archive:web.tar" in the service.
image "web" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }     # Debian: apt install busybox-static
  file "/www/index.html" { content = "${var.greeting}\n" }
  command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
}

service "web" {
  image     = image.web
  instances = 2

  port "http" { container = 8080 }
  route { path = "/" }                            # requests from outside

  health {
    http {
      path = "/"
      port = "http"
    }
  }

  # Change the greeting and `basalt up` again: new instances come up beside the old ones,
  # and get the traffic only once they are healthy.
  rollout "blue_green" {
    keep_old = "10m"                              # `basalt rollback web` is a switch for so long
  }
}
